"""A server that plays an apiserver's bytes: what was asked is recorded, what is answered is a script.

It knows no Kubernetes; each script says what a real one would have sent, chunk borders and broken ends included.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from vnode.kube.client import Client
from vnode.kube.credentials import Connection
from vnode.telemetry.metrics import Metrics


@dataclass(frozen=True)
class Request:
    """What a client asked. Header names are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    at: float  # the loop's time

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def params(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Cut:
    """The connection breaks."""


class Hang:
    """Nothing more comes, and the connection stays."""


Step = bytes | float | type[Cut] | type[Hang]  # bytes to send, or seconds to wait


NO_ANSWER = 0  # as a status: the connection ends without one


@dataclass(frozen=True)
class Answer:
    """A status, headers, and a body in steps. `chunked`: each step of bytes is a chunk; else its length is told."""

    steps: tuple[Step, ...] = ()
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    chunked: bool = False
    delay_s: float = 0.0


def _encoded(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()  # as Go writes it


def answer(body: Any = b"", status: int = 200, delay_s: float = 0.0, **headers: str) -> Answer:
    """A whole answer; what is not bytes is sent as JSON."""
    data = body if isinstance(body, bytes) else _encoded(body)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer((data,), status, named, delay_s=delay_s)


def failure(code: int, reason: str = "", message: str = "no", **headers: str) -> Answer:
    """A `metav1.Status` as an apiserver answers."""
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message}
    data = _encoded({**status, "code": code})
    return Answer((data,), code, {name.replace("_", "-"): value for name, value in headers.items()})


def stream(*steps: Step) -> Answer:
    """A chunked answer; it ends well unless the last step is `Cut` or `Hang`."""
    return Answer(steps, chunked=True)


def line(kind: str, item: Mapping[str, Any]) -> bytes:
    """One event of a watch."""
    return _encoded({"type": kind, "object": item}) + b"\n"


class Server:
    """Answers requests from `script`, in order, whatever they ask; when it is empty, a request waits for ever."""

    def __init__(self, script: list[Answer] | Callable[[Request], Answer]) -> None:
        self.script = script
        self.requests: list[Request] = []
        self.url = ""
        self._connections: set[asyncio.Task[Any]] = set()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until either side ends it."""
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                while await self._serve(reader, writer):
                    pass
        finally:
            writer.transport.abort()
            self._connections.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.strip().split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (text.partition(":") for text in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        request = Request(method, target, headers, body, asyncio.get_running_loop().time())
        self.requests.append(request)
        if not isinstance(self.script, list):
            reply = self.script(request)
        elif self.script:
            reply = self.script.pop(0)
        else:
            reply = stream(Hang)
        await asyncio.sleep(reply.delay_s)
        if reply.status == NO_ANSWER:
            return False
        return await self._send(reply, reader, writer)

    async def _send(self, reply: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        length = sum(len(step) for step in reply.steps if isinstance(step, bytes))
        framing = "Transfer-Encoding: chunked" if reply.chunked else f"Content-Length: {length}"
        named = "".join(f"{name}: {value}\r\n" for name, value in reply.headers.items())
        writer.write(f"HTTP/1.1 {reply.status} X\r\n{framing}\r\n{named}\r\n".encode("latin-1"))
        for step in reply.steps:
            if isinstance(step, bytes):
                writer.write(b"%x\r\n%b\r\n" % (len(step), step) if reply.chunked else step)
                await writer.drain()
            elif isinstance(step, float):
                await asyncio.sleep(step)
            elif step is Cut:
                return False
            else:
                await reader.read()  # until the client goes
                return False
        if reply.chunked:
            writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True

    @property
    def open(self) -> int:
        """How many connections there are."""
        return len(self._connections)

    def stop(self) -> None:
        """End every connection."""
        for task in list(self._connections):
            task.cancel()


@contextlib.asynccontextmanager
async def serving(script: list[Answer] | Callable[[Request], Answer]) -> AsyncIterator[Server]:
    """A server on loopback for the block."""
    server = Server(script)
    listener = await asyncio.start_server(server.connected, "127.0.0.1", 0, limit=2**20)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listener.close()
        server.stop()
        await asyncio.sleep(0)


class FixedCredentials:
    """A connection that never ends, and how often it was refused."""

    def __init__(self, url: str, headers: dict[str, str] | None = None) -> None:
        self.connection = Connection(url, None, headers or {})
        self.refused = 0

    async def current(self) -> Connection:
        """The one there is."""
        return self.connection

    def rejected(self, connection: Connection) -> None:
        """Count it."""
        assert connection is self.connection
        self.refused += 1


@contextlib.asynccontextmanager
async def talking(script: list[Answer] | Callable[[Request], Answer]) -> AsyncIterator[tuple[Client, Server]]:
    """A client, and the server it speaks to."""
    async with serving(script) as server:
        client = Client(FixedCredentials(server.url), "home", Metrics())
        try:
            yield client, server
        finally:
            await client.close()


async def soon(condition: Callable[[], bool], limit_s: float = 5.0) -> None:
    """Wait (on the loop's clock) until `condition` holds."""
    async with asyncio.timeout(limit_s):
        while not condition():  # noqa: ASYNC110 - what is waited for knows no event; time is virtual
            await asyncio.sleep(0.001)
