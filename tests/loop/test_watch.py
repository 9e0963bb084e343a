"""kube.watch.follow: what a watch goes through in its life, and that nothing of it is missed or asked for too often."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from itertools import pairwise
from typing import Any

import pytest

from tests.apiserver import Answer, Cut, Hang, Request, answer, failure, line, soon, stream, talking
from tests.builders import raw_pod
from vnode.errors import Rejected, TooLong
from vnode.kube import client as requests
from vnode.kube import watch
from vnode.kube.client import METADATA_LIST, PODS, Client
from vnode.kube.objects import JsonDict
from vnode.kube.watch import Applied, Backoff, Deleted, Event, Listed, Source, follow

pytestmark = pytest.mark.looptime


def item(name: str, version: int, **fields: Any) -> JsonDict:
    return raw_pod(name, version=version, **fields)


def listed(*items: JsonDict, version: int, more: str = "") -> Answer:
    return answer({"kind": "PodList", "metadata": {"resourceVersion": str(version), "continue": more}, "items": items})


def bookmark(version: int) -> bytes:
    return line("BOOKMARK", {"kind": "Pod", "metadata": {"resourceVersion": str(version), "creationTimestamp": None}})


def brief(event: Event) -> str:
    match event:
        case Listed(items, version):
            return f"listed {' '.join(sorted(found.meta.name for found in items))} at {version}"
        case Applied(found):
            return f"{found.meta.name} at {found.version}"
        case Deleted(found):
            return f"{found.meta.name} gone at {found.version}"


async def heard(client: Client, count: int, source: Callable[[Client], Source] | None = None) -> list[str]:
    """The first `count` events of a follow."""
    found: list[str] = []
    events = follow(source(client) if source else Source(client, PODS), Backoff())
    assert isinstance(events, AsyncIterator)
    async with aclosing(events), asyncio.timeout(3600):  # type: ignore[type-var]
        async for event in events:
            found.append(brief(event))
            if len(found) == count:
                break
    return found


async def gaps(script: list[Answer], count: int, until: int) -> tuple[list[str], list[float]]:
    """Events heard, and the seconds between the first `until` requests."""
    async with talking(script) as (client, server):
        found = await heard(client, count)
        times = [request.at for request in server.requests[:until]]
    return found, [round(later - earlier, 3) for earlier, later in pairwise(times)]


async def test_a_list_comes_first_and_then_its_changes() -> None:
    events = line("ADDED", item("b", 11)) + line("MODIFIED", item("a", 12)) + line("DELETED", item("b", 13))
    async with talking([listed(item("a", 3), version=10), stream(events, Hang)]) as (client, server):
        assert await heard(client, 4) == ["listed a at 10", "b at 11", "a at 12", "b gone at 13"]
    first, second = server.requests
    assert (first.path, first.params) == ("/api/v1/pods", {"limit": "500"})
    assert second.params.pop("timeoutSeconds")
    params = {name: value for name, value in second.params.items() if name != "timeoutSeconds"}
    assert params == {"watch": "1", "allowWatchBookmarks": "true", "resourceVersion": "10"}
    assert 290 <= int(second.params["timeoutSeconds"]) <= 590


async def test_selectors_go_with_every_request() -> None:
    def picky(client: Client) -> Source:
        return Source(client, PODS, {"fieldSelector": "spec.nodeName=edge", "labelSelector": "a=b,c"})

    async with talking([listed(version=10), stream(line("ADDED", item("a", 11)), Hang)]) as (client, server):
        await heard(client, 2, picky)
    for request in server.requests:
        assert (request.params["fieldSelector"], request.params["labelSelector"]) == ("spec.nodeName=edge", "a=b,c")


async def test_metadata_alone_is_asked_for_by_its_media_type() -> None:
    def lean(client: Client) -> Source:
        return Source(client, PODS, metadata_only=True)

    async with talking([listed(version=10), stream(line("ADDED", item("a", 11)), Hang)]) as (client, server):
        await heard(client, 2, lean)
    assert [request.headers["accept"] for request in server.requests] == [
        METADATA_LIST,
        METADATA_LIST.replace("PartialObjectMetadataList", "PartialObjectMetadata"),
    ]


async def test_a_list_comes_page_by_page_as_one() -> None:
    pages = [
        listed(item("a", 1), version=10, more="p2"),
        listed(item("b", 2), version=10, more="p3"),
        listed(item("c", 3), version=10),
    ]
    async with talking(pages) as (client, server):
        assert await heard(client, 1) == ["listed a b c at 10"]
    assert [request.params.get("continue") for request in server.requests] == [None, "p2", "p3"]


async def test_a_page_whose_token_is_too_old_starts_the_list_anew() -> None:
    script = [listed(item("a", 1), version=10, more="p2"), failure(410, "Expired"), listed(item("b", 2), version=20)]
    found, _ = await gaps(script, 1, 3)
    assert found == ["listed b at 20"]


def large(count: int) -> Callable[[Request], Answer]:
    """A server with objects of 1 kB, in pages."""

    def page(request: Request) -> Answer:
        since = int(request.params.get("continue", "0"))
        until = since + int(request.params["limit"])
        names = [f"p{number}" for number in range(since, min(until, count))]
        items = [item(name, 1, annotations={"other": "x" * 1000}) for name in names]
        return listed(*items, version=10, more=str(until) if until < count else "")

    return page


async def test_pages_get_smaller_where_objects_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "MAX_BODY", 100_000)
    async with talking(large(260)) as (client, server):
        found = await Source(client, PODS).list()
    assert [kept.meta.name for kept in found.items] == [f"p{number}" for number in range(260)]
    assert [request.params["limit"] for request in server.requests[:4]] == ["500", "250", "125", "62"]
    assert {request.params["limit"] for request in server.requests[4:]} == {"62"}, "what failed once is not tried again"


async def test_one_object_too_large_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "MAX_BODY", 900)
    async with talking(large(9)) as (client, server):
        with pytest.raises(TooLong):
            await Source(client, PODS).list()
    assert server.requests[-1].params["limit"] == "1"


async def test_of_metadata_others_annotations_are_not_kept() -> None:
    whole = item("a", 11, labels={"app": "web"}, annotations={"vnode.dev/origin-uid": "u", "other": "x" * 1000})
    async with talking([listed(whole, version=11), stream(line("ADDED", whole), Hang)]) as (client, _):
        events = follow(Source(client, PODS, metadata_only=True), Backoff())
        async with aclosing(events):  # type: ignore[type-var]
            first, second = await anext(events), await anext(events)
    assert isinstance(first, Listed)
    assert isinstance(second, Applied)
    for kept in (first.items[0], second.item):
        assert (kept.key, kept.uid, kept.version) == (("shop", "a"), whole["metadata"]["uid"], 11)
        assert kept.meta.labels == {"app": "web"}
        assert kept.meta.annotations == {"vnode.dev/origin-uid": "u"}
        assert (kept.raw_spec, kept.raw_status) == (b"", b"")


# --- the end of a watch ---


async def test_a_watch_that_simply_ended_resumes_at_once_from_its_last_version() -> None:
    script = [
        listed(version=10),
        stream(line("ADDED", item("a", 11))),
        stream(70.0),
        stream(line("ADDED", item("b", 12)), Hang),
    ]
    async with talking(script) as (client, server):
        assert await heard(client, 3) == ["listed  at 10", "a at 11", "b at 12"]
    assert [request.params["resourceVersion"] for request in server.requests[1:]] == ["10", "11", "11"]
    assert server.requests[2].at == pytest.approx(server.requests[1].at, abs=0.01)
    assert server.requests[3].at == pytest.approx(server.requests[2].at + 70, abs=0.01)


async def test_a_bookmark_moves_the_place_to_resume_at_and_is_no_event() -> None:
    script = [listed(version=10), stream(bookmark(50)), stream(line("ADDED", item("a", 51)), Hang)]
    async with talking(script) as (client, server):
        assert await heard(client, 2) == ["listed  at 10", "a at 51"]
    assert [request.params.get("resourceVersion") for request in server.requests] == [None, "10", "50"]


async def test_a_watch_that_ends_at_once_again_and_again_is_not_hammered() -> None:
    script = [listed(version=10), *[stream() for _ in range(8)], stream(line("ADDED", item("a", 11)), Hang)]
    _, waits = await gaps(script, 2, 10)
    assert waits[0] < 0.05
    assert all(wait >= 0.1 for wait in waits[1:])
    assert waits[6] > 3


async def test_a_broken_stream_resumes_from_its_last_version_after_a_pause() -> None:
    script = [
        listed(version=10),
        stream(line("ADDED", item("a", 11)), line("ADDED", item("b", 12))[:40], Cut),
        listed(version=12),
        stream(line("ADDED", item("b", 12)), Hang),
    ]
    async with talking(script) as (client, server):
        assert await heard(client, 3) == ["listed  at 10", "a at 11", "b at 12"]
    assert server.requests[2].params == {"limit": "1"}
    assert server.requests[3].params["resourceVersion"] == "11"
    assert 0.05 < server.requests[2].at - server.requests[1].at < 0.5


async def test_a_server_restored_from_a_backup_is_listed_anew() -> None:
    script = [
        listed(version=10),
        stream(line("ADDED", item("a", 11)), Cut),
        listed(version=7),
        listed(item("b", 6), version=7),
        stream(line("ADDED", item("c", 8)), Hang),
    ]
    async with talking(script) as (client, server):
        assert await heard(client, 4) == ["listed  at 10", "a at 11", "listed b at 7", "c at 8"]
    assert server.requests[4].params["resourceVersion"] == "7"


async def test_a_silent_stream_is_given_up_after_the_idle_limit() -> None:
    script = [listed(version=10), stream(60.0, bookmark(20), Hang), stream(line("ADDED", item("a", 21)), Hang)]
    async with talking(script) as (client, server):
        assert await heard(client, 2) == ["listed  at 10", "a at 21"]
    assert server.requests[2].params["resourceVersion"] == "20"
    assert 60 + watch.IDLE_LIMIT_S <= server.requests[2].at - server.requests[1].at < 60 + watch.IDLE_LIMIT_S + 2


# --- history that is lost ---

EXPIRED = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}


@pytest.mark.parametrize(
    "lost",
    [
        failure(410, "Expired"),
        stream(line("ERROR", EXPIRED)),
        stream(line("ERROR", {**EXPIRED, "code": 0})),
        stream(line("ERROR", {**EXPIRED, "reason": "Gone"})),
    ],
)
async def test_lost_history_is_listed_again_at_once(lost: Answer) -> None:
    script = [
        listed(item("a", 1), version=10),
        stream(line("ADDED", item("b", 11))),
        lost,
        listed(item("c", 30), version=40),
        stream(line("ADDED", item("d", 41)), Hang),
    ]
    async with talking(script) as (client, server):
        found = await heard(client, 4)
    assert found == ["listed a at 10", "b at 11", "listed c at 40", "d at 41"]
    assert server.requests[3].at == pytest.approx(server.requests[2].at, abs=0.01)
    assert server.requests[4].params["resourceVersion"] == "40"


async def test_history_lost_right_after_each_list_is_not_hammered() -> None:
    script: list[Answer] = []
    for _ in range(5):
        script += [listed(version=10), failure(410, "Expired")]
    script += [listed(version=10), stream(line("ADDED", item("a", 11)), Hang)]
    found, waits = await gaps(script, 7, 11)
    assert found == ["listed  at 10"] * 6 + ["a at 11"]
    assert all(wait >= 0.1 for wait in waits[1::2])


async def test_another_error_in_the_stream_is_waited_out_and_resumed() -> None:
    broken = {"kind": "Status", "code": 500, "reason": "InternalError", "message": "etcd is away"}
    script = [
        listed(version=10),
        stream(line("ADDED", item("a", 11)), line("ERROR", broken)),
        listed(version=11),
        stream(line("ADDED", item("b", 12)), Hang),
    ]
    async with talking(script) as (client, server):
        assert await heard(client, 3) == ["listed  at 10", "a at 11", "b at 12"]
    assert server.requests[3].params["resourceVersion"] == "11"


@pytest.mark.parametrize(
    "nonsense",
    [
        b"{no json\n",
        b'{"type":"ADDED"}\n',
        b'{"type":"ADDED","object":3}\n',
        b"[]\n",
        b'{"type":"ADDED","object":{"metadata":{"name":7}}}\n',
        b'{"type":"ADDED","object":{"metadata":{"name":"\xff\xfe"}}}\n',
        b'{"type":"ERROR","object":"what"}\n',
    ],
)
async def test_a_line_that_cannot_be_read_is_got_round_by_a_list(nonsense: bytes) -> None:
    script = [
        listed(version=10),
        stream(line("ADDED", item("a", 11)) + nonsense + line("ADDED", item("b", 12))),
        listed(item("a", 11), item("b", 12), version=20),
    ]
    found, waits = await gaps(script, 3, 3)
    assert found == ["listed  at 10", "a at 11", "listed a b at 20"]
    assert waits[1] >= 0.1


# --- refusals ---


async def test_the_pause_grows_while_a_list_fails_and_is_short_again_after_a_success() -> None:
    script = [
        *[failure(500) for _ in range(7)],
        listed(version=10),
        stream(line("ADDED", item("a", 11)), Cut),
        listed(version=11),
        stream(line("ADDED", item("b", 12)), Hang),
    ]
    _, waits = await gaps(script, 3, 10)
    for tries, wait in enumerate(waits[:7]):
        assert 0.5 * 0.2 * 2**tries - 0.002 <= wait <= 0.2 * 2**tries + 0.05
    assert waits[8] <= 0.25


async def test_the_pause_has_a_cap() -> None:
    backoff = Backoff()
    waits = [backoff.next() for _ in range(4000)]
    assert max(waits) <= 20
    assert min(waits[10:]) >= 10


async def test_the_servers_own_wish_is_obeyed() -> None:
    script = [failure(429, "TooManyRequests", Retry_After="17"), listed(version=10)]
    _, waits = await gaps(script, 1, 2)
    assert 17 <= waits[0] < 18


@pytest.mark.parametrize("code", [401, 403, 404])
async def test_what_is_refused_is_asked_again_later(code: int) -> None:
    found, waits = await gaps([failure(code), listed(version=10)], 1, 2)
    assert found == ["listed  at 10"]
    assert waits[0] >= 0.1


async def test_a_refusal_ends_what_is_optional_and_a_refused_credential_does_not() -> None:
    script = [failure(503), failure(401), listed(version=10), failure(403)]
    async with talking(script) as (client, server):
        with pytest.raises(Rejected):
            await heard(client, 9, lambda client: Source(client, PODS, optional=True))
    assert len(server.requests) == 4


# --- bytes ---


async def test_chunk_borders_mean_nothing() -> None:
    text = line("ADDED", item("a", 11)) + bookmark(12) + line("DELETED", item("ä€", 13)) + b"\n"
    steps = [text[at : at + 7] for at in range(0, len(text), 7)]
    async with talking([listed(version=10), stream(*steps, Hang)]) as (client, _):
        assert await heard(client, 3) == ["listed  at 10", "a at 11", "ä€ gone at 13"]


async def test_lines_longer_than_any_buffer_arrive_whole() -> None:
    big = item("big", 11, annotations={"data": "x" * 300_000})
    text = line("ADDED", big) + line("ADDED", item("b", 12))
    steps = [text[at : at + 50_000] for at in range(0, len(text), 50_000)]
    async with talking([listed(version=10), stream(*steps, Hang)]) as (client, _):
        events = follow(Source(client, PODS), Backoff())
        async with aclosing(events):  # type: ignore[type-var]
            await anext(events)
            event = await anext(events)
            assert isinstance(event, Applied)
            assert event.item.meta.annotations == {"data": "x" * 300_000}
            assert brief(await anext(events)) == "b at 12"


async def test_a_line_without_end_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "MAX_LINE", 100_000)
    endless, sound = stream(*[b"x" * 50_000] * 4, Hang), stream(line("ADDED", item("a", 11)), Hang)
    async with talking([listed(version=10), endless, listed(version=10), sound]) as (client, server):
        assert await heard(client, 2) == ["listed  at 10", "a at 11"]
    assert server.requests[3].params["resourceVersion"] == "10"


async def test_a_last_line_without_its_end_is_not_believed() -> None:
    whole = line("ADDED", item("a", 11))
    script = [listed(version=10), stream(whole[:-1]), stream(whole, Hang)]
    async with talking(script) as (client, server):
        assert await heard(client, 2) == ["listed  at 10", "a at 11"]
    assert server.requests[2].params["resourceVersion"] == "10"


async def test_versions_that_are_no_numbers_do_not_stop_the_watch() -> None:
    odd = {"metadata": {"resourceVersion": "v-1"}, "items": [{"metadata": {"name": "a", "resourceVersion": "v-0"}}]}
    async with talking([answer(odd), stream(line("ADDED", item("b", 5)), Hang)]) as (client, server):
        assert await heard(client, 2) == ["listed a at 0", "b at 5"]
    assert server.requests[1].params["resourceVersion"] == "0"


async def test_cancelling_a_follow_closes_its_connection() -> None:
    async with talking([listed(version=10), stream(line("ADDED", item("a", 11)), Hang)]) as (client, server):
        task = asyncio.get_running_loop().create_task(heard(client, 9))
        await soon(lambda: len(server.requests) == 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await soon(lambda: server.open == 0)


async def test_a_watch_of_one_namespace_that_broke_asks_of_that_namespace_alone() -> None:
    def narrow(client: Client) -> Source:
        return Source(client, PODS, namespace="shop")

    script = [
        listed(version=10),
        failure(500, "InternalError"),
        listed(version=10),
        stream(line("ADDED", item("a", 11)), Hang),
    ]
    async with talking(script) as (client, server):
        assert await heard(client, 2, narrow) == ["listed  at 10", "a at 11"]
    assert {request.path for request in server.requests} == {"/api/v1/namespaces/shop/pods"}
