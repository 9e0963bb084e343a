"""Peer objects, followed by kopf: the only door for that package, which is imported only where Peers are objects.

kopf runs in a thread and loop of its own, since it cancels whatever tasks it finds in its loop when it ends. It has
one handler, of the kind that writes nothing: no annotation, no finalizer, no Event of kopf's is ever on a Peer. What it
sees is handed over to our loop and told there. It does not tell what vanished while it was away; so each of its runs
begins with a list of our own, and a Peer that is served cannot vanish, for it carries our finalizer.

Called by `peers.controller`.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import aiohttp
import kopf
import msgspec

from vnode import names
from vnode.errors import ApiError, NotFound
from vnode.kube.client import PEERS, Client
from vnode.kube.credentials import Connection, Credentials
from vnode.kube.objects import Object, parse_object
from vnode.kube.watch import Applied, Backoff, Deleted, Event, Source

log = logging.getLogger(__name__)

STOP_LIMIT_S: Final = 5.0
LONG_S: Final = 60.0  # a run that lasted longer than this was a good one
QUIET_S: Final = 75.0  # without a word, not even a bookmark, a watch is taken for dead


class PeerSource:
    """Tells `tell` of every change of a Peer, on the loop that awaits `run`."""

    def __init__(self, home: Client, credentials: Credentials, tell: Callable[[Event], None]) -> None:
        self._home = home
        self._credentials = credentials
        self._tell = tell

    async def run(self) -> None:
        """Follow until cancelled; whatever ends kopf, it is started again."""
        backoff = Backoff(base_s=0.5, cap_s=15.0)
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            try:
                self._tell(await Source(self._home, PEERS).list())
                problem = await self._operate()
            except NotFound:
                problem = "there is no such kind: apply deploy/base/crd.yaml"
            except ApiError as error:
                problem = str(error)
            if loop.time() - started > LONG_S:
                backoff.reset()
            log.warning("peers not followed, will try again", extra={"error": problem})
            await asyncio.sleep(backoff.next())

    async def _operate(self) -> str:
        """Run kopf until it ends, and say of what; when this is cancelled, kopf is ended too."""
        ended = asyncio.Event()
        operator = _Operator(self._credentials, asyncio.get_running_loop(), self._tell, ended.set)
        operator.start()
        try:
            await ended.wait()
        finally:
            operator.stop()
            with suppress(TimeoutError):  # a daemon thread: if it hangs, the process ends all the same
                async with asyncio.timeout(STOP_LIMIT_S):
                    await ended.wait()
        return operator.problem


class _Operator(threading.Thread):
    """kopf in its thread. `tell` and `ended` are called on `loop`, `ended` as the last of all."""

    def __init__(
        self,
        credentials: Credentials,
        loop: asyncio.AbstractEventLoop,
        tell: Callable[[Event], None],
        ended: Callable[[], None],
    ) -> None:
        super().__init__(name="kopf", daemon=True)
        self.problem = "kopf has ended"
        self._credentials = credentials
        self._loop = loop
        self._tell = tell
        self._ended = ended
        self._used: Connection | None = None
        self._stop_asked = threading.Event()
        self._own_loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None

    def run(self) -> None:
        """The thread's work."""
        try:
            with suppress(asyncio.CancelledError):
                asyncio.run(self._operate())
        except Exception as error:  # noqa: BLE001 - kopf lets out what it met, of any kind; it is told and run again
            self.problem = str(error) or type(error).__name__
        finally:
            self._loop.call_soon_threadsafe(self._ended)

    def stop(self) -> None:
        """Have kopf end; from any thread, at any time."""
        self._stop_asked.set()
        if self._own_loop is not None and self._task is not None:
            with suppress(RuntimeError):  # it has ended meanwhile
                self._own_loop.call_soon_threadsafe(self._task.cancel)

    async def _operate(self) -> None:
        # Cancelled, not asked by a flag of kopf's, which would have it wait for whatever it has begun.
        self._task = asyncio.current_task()
        self._own_loop = asyncio.get_running_loop()
        if self._stop_asked.is_set():
            return
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry)(self._login)
        kopf.on.event(names.DOMAIN, names.PEER_VERSION, PEERS.plural, registry=registry)(self._seen)
        settings = kopf.OperatorSettings()
        settings.posting.enabled = False
        settings.scanning.disabled = True
        settings.watching.inactivity_timeout = QUIET_S
        await kopf.operator(registry=registry, settings=settings, clusterwide=True, standalone=True)

    async def _login(self, **_: Any) -> kopf.AiohttpSession:
        """A session with the connection our own requests use; asked for again when it was refused."""
        if self._used is not None:
            self._loop.call_soon_threadsafe(self._credentials.rejected, self._used)
        current = asyncio.run_coroutine_threadsafe(_current(self._credentials), self._loop)
        self._used = connection = await asyncio.wrap_future(current)
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=connection.tls or False, limit=0),
            headers={**connection.headers, "User-Agent": names.USER_AGENT},
            proxy=connection.proxy,
        )
        return kopf.AiohttpSession(server=connection.server, aiohttp_session=session)

    async def _seen(self, event: Any, **_: Any) -> None:
        item: Object = parse_object(msgspec.json.encode(dict(event["object"])))
        told = Deleted(item) if event["type"] == "DELETED" else Applied(item)
        self._loop.call_soon_threadsafe(self._tell, told)


async def _current(credentials: Credentials) -> Connection:
    return await credentials.current()
