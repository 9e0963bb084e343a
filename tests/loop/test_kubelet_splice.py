"""Upgraded connections through a kubelet's port, TLS on both sides: no byte lost, none kept, and both ends let go."""

import asyncio
import contextlib
import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime

import pytest

from tests.loop.kubelet_port import Kubelet, kubelet_of, trusting
from vnode.kube.client import Client
from vnode.kube.credentials import Connection
from vnode.kubelet import streams
from vnode.kubelet.certificate import self_signed
from vnode.kubelet.server import server_context
from vnode.telemetry.metrics import Metrics

EXEC = "/exec/shop/web-1/app?command=sh&command=&input=1&output=1"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Session = Callable[[bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n"


class Peer:
    """Credentials of a raw TLS peer; a new token for each that is refused."""

    def __init__(self, port: int) -> None:
        self._server = f"https://127.0.0.1:{port}"
        self._tls = trusting()
        self.refused = 0

    async def current(self) -> Connection:
        return Connection(self._server, self._tls, {"Authorization": f"Bearer ours{self.refused or ''}"})

    def rejected(self, connection: Connection) -> None:
        self.refused += 1


@contextlib.asynccontextmanager
async def kubelet(session: Session) -> AsyncIterator[Kubelet]:
    """A kubelet's port whose peer reads the request's head and then does what `session` says."""
    ended: list[asyncio.Event] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        done = asyncio.Event()
        ended.append(done)
        try:
            await session(await reader.readuntil(b"\r\n\r\n"), reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            done.set()

    metrics = Metrics()
    context = server_context(self_signed("peer", ["127.0.0.1"], datetime.now(UTC)), "")
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    client = Client(Peer(server.sockets[0].getsockname()[1]), "edge", metrics)
    try:
        async with kubelet_of(client, metrics) as port:
            yield port
        async with asyncio.timeout(10):
            for done in ended:
                await done.wait()
    finally:
        server.close()
        await client.close()


@contextlib.asynccontextmanager
async def dialled(
    port: Kubelet, *, upgrade: str = "SPDY/3.1", path: str = EXEC, early: bytes = b""
) -> AsyncIterator[Streams]:
    """A connection to the port with an upgrade request sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port.port, ssl=trusting(), limit=2**16)
    head = (
        f"{'GET' if upgrade == 'websocket' else 'POST'} {path} HTTP/1.1\r\nHost: edge\r\nAuthorization: Bearer good\r\n"
        f"Connection: Upgrade\r\nUpgrade: {upgrade}\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n"
        "X-Stream-Protocol-Version: channel.k8s.io\r\nSec-WebSocket-Key: abc\r\nImpersonate-User: root\r\n"
        "X-Remote-User: root\r\nX-Forwarded-For: 1.2.3.4\r\nCookie: a=b\r\n"
        "Sec-WebSocket-Protocol: v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.c2VjcmV0\r\n\r\n"
    )
    writer.write(head.encode() + early)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def upgraded(reader: asyncio.StreamReader) -> None:
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")


async def echo(_: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(SWITCH)
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()


@pytest.mark.parametrize("upgrade", ["SPDY/3.1", "websocket"])
async def test_bytes_come_back_as_they_went(upgrade: str) -> None:
    data = random.randbytes(8 * 2**20)
    async with kubelet(echo) as port, dialled(port, upgrade=upgrade, early=b"early") as (reader, writer):
        await upgraded(reader)
        if upgrade == "websocket":  # with SPDY aiohttp drops what nobody sends before the answer
            assert await reader.readexactly(5) == b"early"
        async with asyncio.TaskGroup() as group:
            back = group.create_task(reader.readexactly(len(data)))
            writer.write(data)
            await writer.drain()
        assert hashlib.sha256(back.result()).digest() == hashlib.sha256(data).digest()


@pytest.mark.parametrize("size", [0, 1, 100_000, 8 * 2**20])
async def test_what_comes_just_before_the_peer_ends_is_not_lost_on_a_slow_reader(size: int) -> None:
    data = random.randbytes(size)

    async def burst(_: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SWITCH + data)  # glued to the 101, and the end right behind

    async with kubelet(burst) as port:
        for _ in range(5):
            async with dialled(port) as (reader, _writer), asyncio.timeout(30):
                await upgraded(reader)
                got = hashlib.sha256()
                while chunk := await reader.read(2**16):
                    got.update(chunk)
                    await asyncio.sleep(0.001)  # a real socket's reader, slower than its writer
                assert got.digest() == hashlib.sha256(data).digest()


async def test_a_reader_that_stops_stops_the_peer() -> None:
    sent = 0

    async def flood(_: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(SWITCH)
        while True:
            writer.write(b"x" * 65_536)
            await writer.drain()
            sent += 65_536

    async with kubelet(flood) as port, dialled(port) as (reader, _):
        await upgraded(reader)
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.5)  # until every buffer on the way is full
        assert sent < 24 * 2**20


@pytest.mark.parametrize("leaver", ["user", "peer"])
async def test_whoever_leaves_the_other_is_let_go(leaver: str) -> None:
    seen = asyncio.Event()

    async def talk(_: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SWITCH)
        if leaver == "user":
            await reader.read()
            seen.set()

    async with kubelet(talk) as port, asyncio.timeout(10):
        async with dialled(port) as (reader, _):
            await upgraded(reader)
            if leaver == "peer":
                assert await reader.read() == b""
        if leaver == "user":
            await seen.wait()
    assert port.metrics.registry.get_sample_value(
        "vnode_kubelet_requests_total", {"node": "edge", "route": "exec", "code": "101"}
    )


async def test_cancelling_the_server_ends_sessions_within_two_seconds() -> None:
    async with kubelet(echo) as port, dialled(port) as (reader, _):
        await upgraded(reader)
        port.task.cancel()
        async with asyncio.timeout(2):
            await asyncio.wait({port.task})
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""


async def test_the_request_goes_on_translated_and_without_who_asked() -> None:
    heads: list[bytes] = []

    async def note(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(head)
        writer.write(SWITCH)

    async with kubelet(note) as port, dialled(port) as (reader, _):
        await upgraded(reader)
    line, *fields = heads[0].decode().split("\r\n")
    assert line == (
        "POST /api/v1/namespaces/shop-home/pods/web-1/exec?container=app&stdin=true&stdout=true&command=sh&command="
        " HTTP/1.1"
    )
    assert sorted(field for field in fields if field and not field.startswith("Host: ")) == [
        "Authorization: Bearer ours",
        "Connection: Upgrade",
        "Content-Length: 0",
        "Sec-WebSocket-Key: abc",
        "Sec-WebSocket-Protocol: v5.channel.k8s.io",
        "Upgrade: SPDY/3.1",
        "User-Agent: vnode",
        "X-Stream-Protocol-Version: channel.k8s.io",
        "X-Stream-Protocol-Version: v4.channel.k8s.io",
    ]


def status_json(code: int) -> bytes:
    """What an apiserver answers by itself."""
    body = b'{"kind":"Status","message":"said the apiserver"}'
    head = f"HTTP/1.1 {code} No\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@pytest.mark.parametrize(
    ("answer", "code", "text"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone and more", "404", "gone"),
        (b"HTTP/1.1 500 Oh\r\n\r\nuntil the end of web-1_shop-home", "500", "until the end of web-1_shop"),
        (b"HTTP/1.1 500 Oh\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\nlong", "500", "long"),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", "403", "no"),
        (status_json(403), "500", "peer edge refuses vnode: said the apiserver"),
        (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 3\r\n\r\nwho", "500", "peer edge refuses vnode: who"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "500", "the peer gave no upgrade but status 200"),
        (status_json(404), "404", "pod does not exist"),
        (status_json(400), "500", 'container not found ("app")'),
        (status_json(500), "500", "said the apiserver"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "500", "peer edge does not answer"),
        (b"", "500", "peer edge does not answer"),
        (b"HTTP/1.1 101 " + b"x" * 200_000, "500", "peer edge does not answer"),
    ],
    ids=lambda value: value[:16].decode(errors="replace") if isinstance(value, bytes) else None,
)
async def test_what_is_no_upgrade_is_told_to_who_asked(answer: bytes, code: str, text: str) -> None:
    async def refuse(_: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)

    async with kubelet(refuse) as port, dialled(port) as (reader, _), asyncio.timeout(10):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        assert head.split(" ")[1] == code
        assert (await reader.readexactly(len(text))).decode() == text


async def test_a_refused_credential_is_renewed_and_the_peer_asked_once_more() -> None:
    asked: list[bytes] = []

    async def strict(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (token,) = (line for line in head.split(b"\r\n") if line.startswith(b"Authorization: "))
        asked.append(token)
        if token.endswith(b"ours"):
            writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 3\r\n\r\nold")
        else:
            await echo(head, reader, writer)

    async with kubelet(strict) as port, dialled(port) as (reader, writer), asyncio.timeout(10):
        await upgraded(reader)
        writer.write(b"here")
        assert await reader.readexactly(4) == b"here"
    assert asked == [b"Authorization: Bearer ours", b"Authorization: Bearer ours1"]


@pytest.mark.parametrize(
    ("path", "upgrade", "code"),
    [
        (EXEC, "h2c", 500),
        ("/exec/shop/web-1/app?command=id", "SPDY/3.1", 400),
        ("/portForward/shop/web-1?port=80,x", "websocket", 400),
        ("/portForward/shop/web-1?port=000065536", "websocket", 400),
        ("/portForward/shop/web-1?port=" + "0" * 5000, "websocket", 400),
        ("/attach/shop/web-1/u-2/app?output=1", "SPDY/3.1", 500),
        ("/portForward/shop/web-1/u-2", "SPDY/3.1", 404),
    ],
)
async def test_a_bad_request_is_refused_before_the_peer_hears_of_it(path: str, upgrade: str, code: int) -> None:
    async def never(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise AssertionError(head)

    async with kubelet(never) as port, dialled(port, path=path, upgrade=upgrade) as (reader, _):
        assert (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1] == str(code).encode()


async def test_sessions_are_capped_and_a_place_is_free_again_after_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MAX_SESSIONS", 1)
    async with kubelet(echo) as port, asyncio.timeout(10):
        async with dialled(port) as (reader, _):
            await upgraded(reader)
            async with dialled(port) as (refused, _writer):
                assert (await refused.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 503 ")
        while True:
            async with dialled(port) as (reader, _):
                if (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 "):
                    return
