"""An apiserver in virtual time, at the byte seam: what vnode's client sends comes here, what is returned goes back.

Nothing of vnode is faked: requests are built, counted, limited and answered for by the real client.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Self

import msgspec
from yarl import URL

from vnode.kube.client import Client
from vnode.kube.credentials import Connection
from vnode.kube.pool import Pool
from vnode.telemetry.metrics import Metrics

Handler = Callable[[str, str, Any], Awaitable["Answer"]]  # method, path, decoded body


class Answer:
    """A response: its body whole, and then, for a watch, the lines put into `more`."""

    def __init__(self, body: Any = b"", status: int = 200, more: "asyncio.Queue[Any] | None" = None) -> None:
        self.status = status
        self.headers: dict[str, str] = {}
        self.content = self
        self._body = body if isinstance(body, bytes) else msgspec.json.encode(body)
        self._more = more

    async def iter_any(self) -> AsyncIterator[bytes]:
        """The body in pieces, as `aiohttp.StreamReader` gives it."""
        if self._body:
            yield self._body
        while self._more is not None:
            yield msgspec.json.encode(await self._more.get()) + b"\n"

    def close(self) -> None:
        """Nothing is open."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


class Wire(Client):
    """A client whose requests are answered by `handler`, which may sleep, or raise what aiohttp would.

    `resolve` is how long the credential takes, in seconds.
    """

    def __init__(self, handler: Handler, resolve_s: float = 0.0) -> None:
        super().__init__(self, "wire", Metrics())
        self._pool = _Seam(handler)
        self.resolve_s = resolve_s

    async def current(self) -> Connection:
        await asyncio.sleep(self.resolve_s)
        return Connection("https://wire", None, {})

    def rejected(self, connection: Connection) -> None:
        """A credential that never changes."""


class _Seam(Pool):
    """Connections to `handler`."""

    def __init__(self, handler: Handler) -> None:
        super().__init__()
        self._handler = handler

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Any]:
        yield self

    async def send(
        self, method: str, _: Connection, url: URL, _accept: str, _idle: Any, data: Any = None, *_more: Any
    ) -> Any:
        """The handler's answer."""
        watching = "&watch" if "watch" in url.query else ""
        return await self._handler(method, url.path + watching, None if data is None else msgspec.json.decode(data))


@asynccontextmanager
async def at_work(*works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """All `works`, which have no end, run during the block."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work) for work in works]
        yield
        for task in tasks:
            task.cancel()
