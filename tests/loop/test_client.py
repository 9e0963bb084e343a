"""kube.client: what is sent, byte for byte where it matters, and which error each failure becomes."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from tests.apiserver import (
    NO_ANSWER,
    Answer,
    Cut,
    FixedCredentials,
    Hang,
    answer,
    failure,
    serving,
    soon,
    stream,
    talking,
)
from vnode.errors import ApiError, Conflict, Gone, NotFound, Rejected, Unauthorized, Unavailable
from vnode.kube import client as module
from vnode.kube.client import (
    APPLY_PATCH,
    LEASES,
    NODES,
    PODS,
    STRATEGIC_PATCH,
    Client,
    Resource,
    error_of,
)
from vnode.kube.objects import Key
from vnode.telemetry.metrics import Metrics

pytestmark = pytest.mark.looptime
WEB = Key("shop", "web")


async def failed(script: list[Answer], limit_s: float = 3600) -> ApiError:
    """The error a get ends with."""
    async with talking(script) as (client, _), asyncio.timeout(limit_s):
        with pytest.raises(ApiError) as caught:
            await client.get(PODS, WEB)
    return caught.value


# --- requests ---


async def test_each_verb_asks_what_the_api_wants() -> None:
    async with talking([answer({"n": number}) for number in range(9)]) as (client, server):
        assert json.loads(await client.get(PODS, WEB, subresource="log", params={"tailLines": "0"})) == {"n": 0}
        await client.list_page(PODS, "", {"limit": "1"})
        await client.list_page(PODS, "shop", {})
        await client.create(PODS, "shop", {"kind": "Pod"})
        await client.create(PODS, "shop", {"kind": "Eviction"}, name="web", subresource="eviction")
        await client.patch(PODS, WEB, {"status": {}}, STRATEGIC_PATCH, subresource="status")
        await client.apply(NODES, Key("", "edge"), {"kind": "Node"})
        await client.replace(LEASES, Key("kube-node-lease", "edge"), {"kind": "Lease"})
        await client.get_path("/readyz")
    assert [(request.method, request.target) for request in server.requests] == [
        ("GET", "/api/v1/namespaces/shop/pods/web/log?tailLines=0"),
        ("GET", "/api/v1/pods?limit=1"),
        ("GET", "/api/v1/namespaces/shop/pods"),
        ("POST", "/api/v1/namespaces/shop/pods?fieldManager=vnode"),
        ("POST", "/api/v1/namespaces/shop/pods/web/eviction?fieldManager=vnode"),
        ("PATCH", "/api/v1/namespaces/shop/pods/web/status?fieldManager=vnode"),
        ("PATCH", "/api/v1/nodes/edge?fieldManager=vnode&force=true"),
        ("PUT", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/edge?fieldManager=vnode"),
        ("GET", "/readyz"),
    ]
    kinds = [request.headers.get("content-type") for request in server.requests]
    assert kinds == [
        None,
        None,
        None,
        *["application/json"] * 2,
        STRATEGIC_PATCH,
        APPLY_PATCH,
        "application/json",
        None,
    ]
    assert server.requests[3].json == {"kind": "Pod"}
    assert {request.headers["user-agent"] for request in server.requests} == {"vnode"}


@pytest.mark.parametrize(
    ("grace", "sent"), [(None, {}), (0, {"gracePeriodSeconds": 0}), (30, {"gracePeriodSeconds": 30})]
)
async def test_a_deletion_is_of_exactly_one_object(grace: int | None, sent: dict[str, Any]) -> None:
    async with talking([answer({})]) as (client, server):
        await client.delete(PODS, WEB, uid="u1", grace_s=grace)
    (request,) = server.requests
    assert request.method == "DELETE"
    assert request.json == {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": "u1"}, **sent}


async def test_parameters_may_repeat_and_are_quoted() -> None:
    async with talking([answer({})]) as (client, server):
        await client.get(PODS, WEB, params=[("command", "ls"), ("command", "a b&c=ü")])
    assert server.requests[0].target.endswith("?command=ls&command=a+b%26c%3D%C3%BC")


@pytest.mark.parametrize(
    ("name", "segment"),
    [
        ("a/b", "a%2Fb"),
        ("../x", "..%2Fx"),
        ("a?b", "a%3Fb"),
        ("a#b", "a%23b"),
        ("a%2fb", "a%252fb"),
        ("ü", "%C3%BC"),
        ("a b", "a%20b"),
    ],
)
async def test_no_name_leaves_its_segment(name: str, segment: str) -> None:
    async with talking([answer({}), answer({})]) as (client, server):
        await client.get(PODS, Key("shop", name))
        await client.get(PODS, Key(name, "web"))
    assert [request.target for request in server.requests] == [
        f"/api/v1/namespaces/shop/pods/{segment}",
        f"/api/v1/namespaces/{segment}/pods/web",
    ]


@pytest.mark.parametrize("key", [Key("shop", ".."), Key("shop", "."), Key("..", "web"), Key(".", "web")])
async def test_dots_name_nothing(key: Key) -> None:
    async with talking([]) as (client, server):
        with pytest.raises(NotFound):
            await client.get(PODS, key)
    assert server.requests == []


def test_a_path_is_made_of_what_the_key_has() -> None:
    leases = Resource("/apis/x/v1", "things")
    assert [
        leases.path(),
        leases.path(Key("n", "")),
        leases.path(Key("", "a")),
        leases.path(Key("n", "a"), "status"),
    ] == [
        "/apis/x/v1/things",
        "/apis/x/v1/namespaces/n/things",
        "/apis/x/v1/things/a",
        "/apis/x/v1/namespaces/n/things/a/status",
    ]


async def test_the_credentials_headers_go_with_every_request() -> None:
    async with serving([answer({})]) as server:
        client = Client(FixedCredentials(server.url, {"Authorization": "Bearer sesame"}), "home", Metrics())
        await client.get(PODS, WEB)
        await client.close()
    assert server.requests[0].headers["authorization"] == "Bearer sesame"


async def test_a_client_may_be_used_again_after_it_was_closed() -> None:
    async with talking([answer({}), answer({})]) as (client, server):
        await client.get(PODS, WEB)
        await client.close()
        await client.close()
        await client.get(PODS, WEB)
    assert len(server.requests) == 2


# --- refusals ---


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (400, Rejected),
        (401, Unauthorized),
        (403, Rejected),
        (404, NotFound),
        (405, Rejected),
        (406, Rejected),
        (409, Conflict),
        (410, Gone),
        (413, Rejected),
        (415, Rejected),
        (422, Rejected),
        (429, Unavailable),
        (301, Unavailable),
        (418, Unavailable),
        (500, Unavailable),
        (503, Unavailable),
        (504, Unavailable),
    ],
)
async def test_a_refusal_becomes_the_error_that_says_what_to_do(code: int, kind: type[ApiError]) -> None:
    error = await failed([failure(code, "Reason", "the words of the server")])
    assert type(error) is kind
    assert (error.code, error.reason, error.message) == (code, "Reason", "the words of the server")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "HTTP 503"),
        (b"  plain words \n", "plain words"),
        (b'{"message": 7}', '{"message": 7}'),
        (b"[]", "[]"),
        (b"\xff\xfe", "��"),
    ],
)
async def test_a_refusal_without_a_status_is_told_in_its_own_words(body: bytes, message: str) -> None:
    error = await failed([answer(body, 503)])
    assert (error.message, error.reason) == (message, "")


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7), ("0", 0), ("600", 60), ("-1", 0), ("soon", 0), ("1.5", 0), ("", 0), ("²", 0)],
)
def test_the_servers_wish_for_quiet_is_read_and_bounded(header: str, seconds: float) -> None:
    error = error_of(429, b"", header)
    assert isinstance(error, Unavailable)
    assert error.after == seconds


async def test_the_wish_comes_by_header() -> None:
    error = await failed([failure(429, "TooManyRequests", Retry_After="7")])
    assert isinstance(error, Unavailable)
    assert error.after == 7


@pytest.mark.parametrize("code", [404, 409, 410, 422])
async def test_a_refusal_with_a_giant_body_stays_what_it_is(code: int) -> None:
    error = await failed([answer(b"x" * 200_000, code)])
    assert error.code == code
    assert len(error.message) <= 1000
    assert not isinstance(error, Unavailable)


async def test_a_redirect_is_not_followed() -> None:
    async with talking([answer(b"", 302, Location="http://127.0.0.1:9/elsewhere")]) as (client, server):
        with pytest.raises(Unavailable):
            await client.get(PODS, WEB)
    assert len(server.requests) == 1


# --- failures of the line ---


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    client = Client(FixedCredentials("http://127.0.0.1:9"), "home", Metrics())
    with pytest.raises(Unavailable) as caught:
        await client.get(PODS, WEB)
    await client.close()
    assert caught.value.code == 0
    assert "127.0.0.1:9" in str(caught.value)


async def test_a_proxys_password_is_not_told() -> None:
    async with serving([answer(b"", 407)]) as proxy:
        for url in (proxy.url.replace("//", "//someone:secret@"), "http://someone:secret@proxy:port"):
            credentials = FixedCredentials("https://home.example")
            credentials.connection = replace(credentials.connection, proxy=url)
            client = Client(credentials, "home", Metrics())
            error = await failed_with(client)
            await client.close()
            assert isinstance(error, Unavailable)
            assert "home.example" in error.message
            assert "secret" not in error.message


@pytest.mark.parametrize("broken", [stream(b"half", Cut), stream(Cut), Answer(status=NO_ANSWER)])
async def test_an_answer_that_breaks_off_is_unavailable(broken: Answer) -> None:
    assert isinstance(await failed([broken]), Unavailable)


@pytest.mark.parametrize("slow", [Answer((b"{}",), delay_s=10**6), stream(b"{", Hang), stream(20.0, b"x", 20.0, b"x")])
async def test_an_answer_that_takes_too_long_is_unavailable(slow: Answer) -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    assert isinstance(await failed([slow]), Unavailable)
    assert loop.time() - started == pytest.approx(module.REQUEST_LIMIT_S, abs=0.1)


async def test_a_caller_may_set_a_shorter_limit() -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    async with talking([]) as (client, _):
        with pytest.raises(Unavailable):
            await client.get_path("/readyz", limit_s=5)
    assert loop.time() - started == pytest.approx(5, abs=0.1)


async def test_an_answer_without_end_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BODY", 100_000)
    error = await failed([stream(*[b"x" * 60_000] * 3, Hang)])
    assert isinstance(error, Unavailable)
    assert "longer than 100000 bytes" in str(error)


async def test_after_a_failure_the_next_request_has_a_line_of_its_own() -> None:
    async with talking([stream(b"{", Hang), answer({"n": 1})]) as (client, server):
        with pytest.raises(Unavailable):
            await client.get(PODS, WEB)
        await soon(lambda: server.open == 0)
        assert json.loads(await client.get(PODS, WEB)) == {"n": 1}


async def test_after_a_request_timed_out_no_kept_connection_is_used_again() -> None:
    """They were made before whatever is wrong now, and may all be dead; what is under way is left alone."""
    script = [answer({}, delay_s=0.1), answer({}, delay_s=0.1), stream(b"log", Hang), stream(Hang), answer({})]
    async with talking(script) as (client, server):
        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(client.get(PODS, WEB))
        async with client.stream("get", PODS, PODS.path(WEB, "log"), {}) as content:
            assert await content.readany() == b"log"
            assert server.open == 2
            with pytest.raises(Unavailable):
                await client.get(PODS, WEB)
            await soon(lambda: server.open == 1)  # the stream's
            await client.get(PODS, WEB)
            assert server.open == 2
        await soon(lambda: server.open == 1)


async def test_breaking_off_ends_what_waits_for_an_answer_and_no_stream() -> None:
    async with (
        talking([stream(b"one", 5.0, b"two"), stream(Hang)]) as (client, server),
        client.stream("get", PODS, PODS.path(WEB, "log"), {}) as content,
    ):
        assert await content.readany() == b"one"
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(failed_with(client))
            await soon(lambda: len(server.requests) == 2)
            client.break_off()
        assert isinstance(waiting.result(), Unavailable)
        assert await content.readany() == b"two"


async def failed_with(client: Client) -> ApiError:
    """The error that a get of this client ends with."""
    with pytest.raises(ApiError) as caught:
        await client.get(PODS, WEB)
    return caught.value


async def test_a_name_that_no_thread_can_resolve_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(*_: Any, **__: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", full)
    client = Client(FixedCredentials("http://peer.test:1"), "home", Metrics())
    with pytest.raises(Unavailable, match="can't start new thread"):
        await client.get(PODS, WEB)
    await client.close()


# --- credentials ---


async def test_a_credential_that_is_refused_is_renewed() -> None:
    async with serving([failure(401), failure(401), failure(403)]) as server:
        credentials = FixedCredentials(server.url)
        client = Client(credentials, "home", Metrics())
        with pytest.raises(Unauthorized):
            await client.get(PODS, WEB)
        with pytest.raises(Unauthorized):
            async with client.stream("watch", PODS, PODS.path(), {}):
                pass
        assert credentials.refused == 2
        with pytest.raises(Rejected):
            await client.get(PODS, WEB)
        assert credentials.refused == 2
        await client.close()


# --- streams ---


async def test_a_stream_gives_its_bytes_as_they_come() -> None:
    async with talking([stream(b"one", 5.0, b"two")]) as (client, server):
        async with client.stream("get", PODS, PODS.path(WEB, "log"), {"follow": "true"}, accept="*/*") as content:
            assert [chunk async for chunk in content.iter_any()] == [b"one", b"two"]
        assert (server.requests[0].target, server.requests[0].headers["accept"]) == (
            "/api/v1/namespaces/shop/pods/web/log?follow=true",
            "*/*",
        )


async def test_a_stream_left_early_is_closed_and_not_drained() -> None:
    async with talking([stream(b"one", Hang)]) as (client, server):
        async with client.stream("get", PODS, PODS.path(), {}) as content:
            assert await content.readany() == b"one"
        await soon(lambda: server.open == 0)


@pytest.mark.parametrize("code", [403, 404, 410, 500])
async def test_a_stream_that_is_refused_raises_before_the_block(code: int) -> None:
    async with talking([failure(code, message="no")]) as (client, _):
        with pytest.raises(ApiError, match=r"^no$") as caught:
            async with client.stream("watch", PODS, PODS.path(), {}):
                pytest.fail("the block must not run")
    assert caught.value.code == code


async def test_a_refusal_whose_words_never_come_is_unavailable() -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    refusal = Answer((b"half", Hang), 500, chunked=True)
    async with talking([refusal]) as (client, _):
        with pytest.raises(Unavailable):
            async with client.stream("get", PODS, PODS.path(), {}):
                pytest.fail("the block must not run")
    assert loop.time() - started < 2 * module.REQUEST_LIMIT_S + 1


async def test_a_stream_that_never_begins_is_unavailable() -> None:
    async with talking([answer(b"", delay_s=10**6)]) as (client, _):
        with pytest.raises(Unavailable):
            async with client.stream("watch", PODS, PODS.path(), {}):
                pytest.fail("the block must not run")


async def test_a_stream_may_last_for_hours_and_be_silent_when_allowed() -> None:
    script = [stream(b"one", 20_000.0, b"two")]
    async with talking(script) as (client, _), client.stream("get", PODS, PODS.path(), {}) as content:
        assert [chunk async for chunk in content.iter_any()] == [b"one", b"two"]


async def test_a_silent_stream_with_a_limit_is_unavailable() -> None:
    async with talking([stream(b"one", Hang)]) as (client, _):
        with pytest.raises(Unavailable):
            async with client.stream("get", PODS, PODS.path(), {}, idle_s=75) as content:
                assert [chunk async for chunk in content.iter_any()] == []


async def test_requests_are_counted_by_side_verb_and_code() -> None:
    metrics = Metrics()
    async with serving([answer({}), failure(404), stream(b"x"), failure(410), answer(b"", delay_s=99.0)]) as server:
        client = Client(FixedCredentials(server.url), "edge", metrics)
        await client.get(PODS, WEB)
        with pytest.raises(NotFound):
            await client.get(PODS, WEB)
        async with client.stream("watch", PODS, PODS.path(), {}) as content:
            await content.read()
        with pytest.raises(Gone):
            async with client.stream("watch", PODS, PODS.path(), {}):
                pass
        with pytest.raises(Unavailable):
            await client.get(PODS, WEB)
        await client.close()
    found = {}
    for family in metrics.registry.collect():
        for sample in family.samples:
            if sample.name == "vnode_kube_requests_total":
                assert (sample.labels["side"], sample.labels["resource"]) == ("edge", "pods")
                found[sample.labels["verb"], sample.labels["code"]] = sample.value
    assert found == {("get", "200"): 1, ("get", "404"): 1, ("get", "0"): 1, ("watch", "200"): 1, ("watch", "410"): 1}
