"""What a stranger, or a slow friend, can take of a kubelet's port: time, memory and connections, all of it bounded."""

import asyncio
import contextlib
import itertools
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web

from tests.loop.kubelet_port import LOGS, Kubelet, apiserver, home, kubelet, trusting
from vnode.kube.objects import from_dict
from vnode.kubelet import auth, reports, server
from vnode.kubelet.auth import Door
from vnode.kubelet.authority import ClientAuthority
from vnode.kubelet.request import Bound, Refused
from vnode.kubelet.stats import Stats
from vnode.telemetry.metrics import Metrics

HEAD = b"GET /healthz HTTP/1.1\r\nHost: edge\r\nAuthorization: Bearer good\r\n"
Wire = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def silent(_: web.BaseRequest) -> web.StreamResponse:
    raise AssertionError("the peer is not asked")


@contextlib.asynccontextmanager
async def dialled(port: Kubelet) -> AsyncIterator[Wire]:
    """A TLS connection to the port, to be used byte by byte."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port.port, ssl=trusting())
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def ended(reader: asyncio.StreamReader) -> bytes:
    """All that came until the server closed the connection."""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        return await reader.read()
    return b""


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> None:
    """Send it again and again, a byte at a time, until nobody takes it."""
    for byte in itertools.cycle(data):
        if reader.at_eof() or writer.is_closing():
            return
        writer.write(bytes([byte]))
        await asyncio.sleep(0.02)


@pytest.fixture
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that a test can wait for."""
    monkeypatch.setattr(server, "IDLE_LIMIT_S", 0.5)


@pytest.mark.usefixtures("brisk")
@pytest.mark.parametrize("first", [b"", HEAD + b"\r\n"], ids=["first request", "later request"])
async def test_a_head_that_comes_byte_by_byte_is_not_waited_for(first: bytes) -> None:
    async with kubelet(silent) as port, dialled(port) as (reader, writer), asyncio.timeout(5):
        if first:
            writer.write(first)
            assert b"200 OK" in await reader.readuntil(b"\r\n\r\nok")
        began = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            group.create_task(drip(reader, writer, b"GET /healthz HTTP/1.1\r\n" + b"X-A: b\r\n" * 100))
            assert await ended(reader) == b""
        assert 0.4 < asyncio.get_running_loop().time() - began < 2


@pytest.mark.usefixtures("brisk")
async def test_a_connection_that_asks_nothing_is_closed() -> None:
    async with kubelet(silent) as port, dialled(port) as (reader, _), asyncio.timeout(5):
        assert await ended(reader) == b""


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"x" * server.MAX_LINE + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: edge\r\nX-Long: " + b"x" * 2 * server.MAX_HEADER + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: edge\r\n" + b"X-Many: x\r\n" * server.MAX_HEADERS + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: edge\r\nX-Endless: " + b"x" * 10_000_000,
        b"\x00" * 1000,
        b"GET / HTTP/1.1\r\nHost: edge\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: edge\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    ],
    ids=["line", "header", "headers", "endless", "no HTTP", "two lengths", "two content lengths"],
)
async def test_a_head_that_is_too_much_or_ambiguous_ends_the_connection(
    head: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with kubelet(silent) as port, dialled(port) as (reader, writer), asyncio.timeout(5):
        writer.write(head)
        assert (await ended(reader)).startswith(b"HTTP/1.0 400 ")
    assert not [record for record in caplog.records if record.exc_info], "anybody could fill the log"


async def test_a_body_nobody_wants_is_not_waited_for() -> None:
    async with kubelet(silent) as port, dialled(port) as (reader, writer), asyncio.timeout(5):
        writer.write(HEAD + b"Content-Length: 1000000000000\r\n\r\n")
        async with asyncio.TaskGroup() as group:
            sender = group.create_task(Flood().pour(writer))
            assert (await ended(reader)).startswith(b"HTTP/1.1 200 OK")
            sender.cancel()


async def test_a_body_that_comes_during_a_long_answer_is_not_gathered() -> None:
    async def following(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await asyncio.Event().wait()
        return response

    flood, before = Flood(), -1
    async with kubelet(following) as port, dialled(port) as (reader, writer), asyncio.timeout(10):
        head = HEAD.replace(b"/healthz", f"{LOGS}?follow=true".encode())
        writer.write(head + b"Content-Length: 1000000000000\r\n\r\n")
        assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
        async with asyncio.TaskGroup() as group:
            sender = group.create_task(flood.pour(writer))
            while before != flood.sent:
                before = flood.sent
                await asyncio.sleep(0.3)  # the sockets' buffers fill first
            sender.cancel()
        assert flood.sent < 16 * 2**20


class Flood:
    """A body without end, as fast as it is taken."""

    def __init__(self) -> None:
        self.sent = 0

    async def pour(self, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while True:
                writer.write(b"x" * 2**16)
                await writer.drain()
                self.sent += 2**16


@pytest.mark.parametrize("report", ["/metrics/cadvisor", "/pods"])
async def test_a_reader_that_takes_nothing_of_a_long_report_is_given_up(
    report: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def plenty(*_: object) -> bytes:
        return b"x" * (32 * 2**20)

    monkeypatch.setattr(reports, "WRITE_LIMIT_S", 0.5)
    monkeypatch.setattr(Stats, "text", plenty)
    pods = [Bound(from_dict({"metadata": {"name": "a"}, "spec": {"nodeName": "x" * 2**16}}), None)] * 500
    async with kubelet(silent, pods) as port, dialled(port) as (_, writer), asyncio.timeout(10):
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(HEAD.replace(b"/healthz", report.encode()) + b"\r\n")
        labels = {"node": "edge", "route": report[1:], "code": "500"}
        while not port.metrics.registry.get_sample_value("vnode_kubelet_requests_total", labels):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_who_asks_on_is_answered_one_request_at_a_time() -> None:
    async with kubelet(silent) as port, dialled(port) as (reader, writer), asyncio.timeout(10):
        writer.write((HEAD + b"\r\n") * 5000)
        for _ in range(5000):
            assert await reader.readuntil(b"\r\n\r\nok")
    assert port.reviews == ["tokenreviews", "subjectaccessreviews"]


async def test_an_apiserver_that_gives_no_verdict_lets_nobody_in_and_holds_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(auth, "REVIEW_LIMIT_S", 0.3)

    def hanging(kind: str) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
        answer = home([])

        async def serve(request: web.BaseRequest) -> web.StreamResponse:
            if request.path.endswith(kind):
                await asyncio.Event().wait()
            return await answer(request)

        return serve

    for kind, code in (("tokenreviews", 503), ("subjectaccessreviews", 500)):
        async with apiserver(hanging(kind), Metrics()) as at_home, asyncio.timeout(5):
            door = Door(at_home, "edge", ClientAuthority(at_home))
            with pytest.raises(Refused) as refused:
                await door.enter(None, "Bearer good", "GET", LOGS)
            assert refused.value.code == code
