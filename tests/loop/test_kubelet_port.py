"""Logs through a kubelet's port, between bytes we make: backpressure, both ends leaving, the door's economy."""

import asyncio
import hashlib
import random

import aiohttp
import pytest
from aiohttp import web

from tests.loop.kubelet_port import LOGS, kubelet, reports_of
from tests.loop.wire import Answer, Wire
from vnode.errors import VnodeError
from vnode.kube.objects import Key
from vnode.kubelet import server
from vnode.kubelet.auth import Door
from vnode.kubelet.authority import ClientAuthority
from vnode.kubelet.certificate import ServingCertificate
from vnode.kubelet.request import Located
from vnode.telemetry.metrics import Metrics


class Log:
    """A log at the peer which says what `lines` yields, and remembers how much of it got away and who left."""

    def __init__(self, *chunks: bytes, then: str = "end") -> None:
        self._chunks = chunks
        self._then = then
        self.sent = 0
        self.left = asyncio.Event()
        self.asked = ""

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked = request.path_qs
        response = web.StreamResponse()
        try:
            await response.prepare(request)
            for chunk in self._chunks:
                await response.write(chunk)
                self.sent += len(chunk)
            if self._then == "silence":
                await asyncio.Event().wait()
            if self._then == "break":
                raise ConnectionError
        except (asyncio.CancelledError, ConnectionError):
            self.left.set()
            raise
        return response


async def test_a_log_arrives_whole_and_is_asked_for_by_its_remote_name() -> None:
    chunks = [random.randbytes(random.randint(1, 70_000)) for _ in range(300)]
    log = Log(*chunks)
    async with kubelet(log) as port, port.get(f"{LOGS}?timestamps=true&tailLines=7") as response:
        assert (response.status, response.content_type) == (200, "text/plain")
        assert hashlib.sha256(await response.read()).digest() == hashlib.sha256(b"".join(chunks)).digest()
    assert log.asked == "/api/v1/namespaces/shop-home/pods/web-1/log?container=app&timestamps=true&tailLines=7"


async def test_the_head_comes_before_the_first_line() -> None:
    async with kubelet(Log(then="silence")) as port, asyncio.timeout(5), port.get(f"{LOGS}?follow=true") as response:
        assert response.status == 200


async def test_a_reader_that_does_not_read_stops_the_peer() -> None:
    log = Log(*(b"x" * 65_536 for _ in range(1600)))  # 100 MiB
    async with kubelet(log) as port, port.get(f"{LOGS}?follow=true"):
        before = -1
        while before != log.sent:
            before = log.sent
            await asyncio.sleep(0.5)  # real sockets: what they and the two ends' buffers hold must fill first
        assert log.sent < 32 * 2**20


async def test_a_reader_that_leaves_ends_the_stream_at_the_peer() -> None:
    log = Log(b"one\n", then="silence")
    async with kubelet(log) as port, asyncio.timeout(5):
        async with port.get(f"{LOGS}?follow=true") as response:
            assert await response.content.readline() == b"one\n"
        await log.left.wait()


async def test_a_stream_that_breaks_at_the_peer_does_not_look_ended() -> None:
    async with kubelet(Log(b"one\n", then="break")) as port, port.get(f"{LOGS}?follow=true") as response:
        assert await response.content.readline() == b"one\n"
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


async def test_cancelling_the_server_ends_followers_quickly_and_not_as_if_the_log_were_over() -> None:
    log = Log(b"one\n", then="silence")
    async with kubelet(log) as port, port.get(f"{LOGS}?follow=true") as response:
        await response.content.readline()
        port.task.cancel()
        async with asyncio.timeout(2):
            await asyncio.wait({port.task})
            await log.left.wait()
        with pytest.raises(aiohttp.ClientError):
            await response.read()


async def test_one_review_of_each_kind_serves_many_requests() -> None:
    async with kubelet(Log(b"one\n")) as port:

        async def ask(token: str, code: int) -> None:
            async with port.get(token=token) as response:
                assert response.status == code

        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(ask("good", 200))
                group.create_task(ask("bad", 401))
        assert sorted(port.reviews) == ["subjectaccessreviews", "tokenreviews", "tokenreviews"]


async def test_a_peer_that_refuses_is_plain_text_of_status_400() -> None:
    async def refuse(_: web.BaseRequest) -> web.StreamResponse:
        message = 'container "app" in pod "web-1" is waiting to start: ContainerCreating'
        return web.json_response({"kind": "Status", "message": message, "reason": "BadRequest"}, status=400)

    async with kubelet(refuse) as port, port.get() as response:
        assert (response.status, response.content_type) == (400, "text/plain")
        assert await response.text() == 'container "app" in pod "web-1" is waiting to start: ContainerCreating'


@pytest.mark.parametrize(("refusals", "status"), [(1, 200), (2, 500)])
async def test_a_refused_credential_is_renewed_and_the_peer_asked_once_more(refusals: int, status: int) -> None:
    asked: list[str] = []

    async def strict(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request.headers["Authorization"])
        if len(asked) <= refusals:
            return web.json_response({"kind": "Status", "message": "Unauthorized"}, status=401)
        return web.Response(text="one\n")

    async with kubelet(strict) as port, port.get() as response:
        assert (response.status, await response.text()) in (
            (200, "one\n"),
            (500, "peer peer refuses vnode: Unauthorized"),
        )
        assert response.status == status
    assert asked == ["Bearer 0", "Bearer 1"]


async def test_a_refused_certificate_request_is_one_line_in_the_log_and_the_port_serves_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", logger="vnode.kubelet.certificate")
    async with kubelet(Log(b"one\n")) as port, port.get() as response:
        assert await response.read() == b"one\n"
    told = [record.message for record in caplog.records]
    assert told == ["serving certificate is self-signed", "no serving certificate from the cluster"]


async def test_connections_that_say_nothing_are_counted_and_bounded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 10)
    monkeypatch.setattr(server, "HANDSHAKE_LIMIT_S", 1.0)
    ended = 0

    async def silent(port: int) -> None:
        nonlocal ended
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            await reader.read()
        except ConnectionError:
            pass
        finally:
            writer.close()
        ended += 1

    loop = asyncio.get_running_loop()
    async with kubelet(Log(b"one\n")) as port, asyncio.timeout(10), asyncio.TaskGroup() as group:
        began = loop.time()
        for _ in range(100):
            group.create_task(silent(port.port))
        while ended < 90:  # noqa: ASYNC110 - what is waited for knows no event
            await asyncio.sleep(0.01)
        assert loop.time() - began < 1, "those too many do not wait for anything"
        while ended < 100:
            assert ended == 90 or loop.time() - began >= 0.9
            await asyncio.sleep(0.01)
        async with port.get() as response:
            assert await response.read() == b"one\n"
    assert [record.message for record in caplog.records].count("kubelet port is full, new connections are closed") == 1


async def test_an_address_that_is_not_ours_is_told_in_one_line() -> None:
    async def nobody(*_: object) -> Answer:
        raise AssertionError("nothing is asked before the port is open")

    wire = Wire(nobody)
    port = server.KubeletServer(
        node="edge",
        address="192.0.2.1",  # RFC 5737: nobody's
        port=0,
        door=Door(wire, "edge", ClientAuthority(wire)),
        locate=lambda _, pod: Located(wire, Key("shop-home", pod), "u-1"),
        reports=reports_of(wire, (), Metrics()),
        certificate=ServingCertificate(wire, "edge", ["192.0.2.1"]),
        metrics=Metrics(),
    )
    with pytest.raises(VnodeError, match=r"192\.0\.2\.1.*kubelet\.address must be an address of this machine"):
        await port.run(lambda _: None)
