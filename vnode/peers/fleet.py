"""The kept sessions, by peer: follows the whole set that is wanted, and starts, stops, or stops and starts single ones.

A live session is never mutated, and between peers no loss spreads. Made by `app`; the set comes from there (a file's
peers) or from `peers.controller` (Peer objects).
"""

import asyncio
import gc
import logging
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Final, NamedTuple

from vnode.config import PeerSpec
from vnode.errors import VnodeError
from vnode.kube.credentials import Credentials
from vnode.kube.objects import utc_now
from vnode.node.removal import drain_and_remove
from vnode.peers.home import Home
from vnode.peers.renewal import Keep
from vnode.peers.session import Session
from vnode.runtime.controller import keep
from vnode.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

STOP_LIMIT_S: Final = 5.0
LOOK_EVERY_S: Final = 0.2


class Wanted(NamedTuple):
    """What a session is made from. The same credentials may give other connections with time, by `keep` for one."""

    spec: PeerSpec
    credentials: Credentials
    keep: Keep


class _Kept:
    """One peer as long as its `wanted` stays the same: its session, which may die and be started again."""

    def __init__(self, wanted: Wanted, begun_at: float) -> None:
        self.wanted = wanted
        self.begun_at = begun_at
        self.works = asyncio.Event()
        self.session: Session | None = None
        self.task: asyncio.Task[None] | None = None


class Fleet:
    """Every peer's kept session. Constructing opens nothing; `run` does the work."""

    def __init__(self, metrics: Metrics, now: Callable[[], datetime] = utc_now) -> None:
        self.failures: dict[str, str] = {}  # by peer, what last ended its session; whoever tells it may remove it
        self._metrics = metrics
        self._now = now
        self._wanted: dict[str, Wanted] = {}
        self._leaving: frozenset[str] = frozenset()
        self._kept: dict[str, _Kept] = {}
        self._changed = asyncio.Event()

    @property
    def names(self) -> list[str]:
        """The peers that are wanted now."""
        return list(self._wanted)

    def follow(self, wanted: Mapping[str, Wanted], leaving: Collection[str] = ()) -> None:
        """From now on serve exactly these peers; what is equal to what it was goes on as it is.

        Those that are `leaving` are served to their end: their Nodes are not made again.
        """
        self._wanted = dict(wanted)
        self._leaving = frozenset(leaving)
        self._changed.set()

    def session(self, peer: str) -> Session | None:
        """The session that runs, or has run last, for what is wanted of that peer now."""
        kept = self._kept.get(peer)
        return kept.session if kept is not None and kept.wanted == self._wanted.get(peer) else None

    def begun_at(self, peer: str) -> float:
        """When, on the loop's clock, it was begun to serve what is wanted of that peer now; if not yet, infinity."""
        kept = self._kept.get(peer)
        return kept.begun_at if kept is not None and kept.wanted == self._wanted.get(peer) else float("inf")

    async def working(self, peer: str) -> Session:
        """The peer's session, once there is one that does its work."""
        while True:
            kept = self._kept.get(peer)
            if kept is not None and kept.wanted == self._wanted.get(peer):
                await kept.works.wait()
                if kept.session is not None and kept is self._kept.get(peer):
                    return kept.session
            else:
                await asyncio.sleep(LOOK_EVERY_S)

    @property
    def unready(self) -> list[str]:
        """What does not work yet, for `/readyz`."""
        waiting: list[str] = []
        for name in self._wanted:
            session = self.session(name)
            waiting += session.unready if session else [f"{name}: not started"]
        return waiting

    async def run(self, home: Home) -> None:
        """Serve what is wanted, until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._changed.wait()
                self._changed.clear()
                await self._stop_others()
                for name, wanted in self._wanted.items():
                    if name not in self._kept:
                        self._start(name, wanted, home, group)

    async def stop(self) -> None:
        """Mark every Node as stopped, all at once and within a limit: an apiserver that is away must not hold us."""

        async def stop(session: Session) -> None:
            try:
                async with asyncio.timeout(STOP_LIMIT_S):
                    await session.stop("vnode was stopped")
            except (VnodeError, TimeoutError) as error:
                log.warning("node not marked as stopped", extra={"peer": session.spec.name, "error": str(error)})

        async with asyncio.TaskGroup() as group:
            for name, kept in self._kept.items():
                if kept.session is not None:
                    group.create_task(stop(kept.session), name=f"{name}/stop")

    async def remove(self, peer: str, say: Callable[[str], None], limit_s: float) -> str:
        """Drain and remove a served peer's Node and what is ours there, with `limit_s` for each step.

        Returns why it did not succeed, "" when it did.
        """
        node = self._wanted[peer].spec.node_name
        problem = f"peer {peer} did not answer; if it is gone for good, deploy/README.md says what to do"
        try:
            async with asyncio.timeout(limit_s):
                session = await self.working(peer)
            await drain_and_remove(session.home.client, node, session.home.identity, say, limit_s)
            problem = "what is ours at the peer did not go; run it again"
            async with asyncio.timeout(limit_s):
                await session.leftovers.clear(say)
        except VnodeError as error:
            return f"{node}: {error}"
        except TimeoutError:
            return f"{node}: after {limit_s:.0f} s {problem}"
        return ""

    async def _stop_others(self) -> None:
        """End the sessions of what is wanted no more, or otherwise."""
        going = {name: kept for name, kept in self._kept.items() if kept.wanted != self._wanted.get(name)}
        tasks = [kept.task for kept in going.values() if kept.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for name, kept in going.items():
            del self._kept[name]
            kept.works.set()  # who waits for it is to look for its successor
            self.failures.pop(name, None)
            if name not in self._wanted:
                self._metrics.forget(name)
            log.info("peer session stopped", extra={"peer": name, "again": name in self._wanted})

    def _start(self, name: str, wanted: Wanted, home: Home, group: asyncio.TaskGroup) -> None:
        kept = self._kept[name] = _Kept(wanted, asyncio.get_running_loop().time())

        def works() -> None:
            kept.works.set()
            if all(other.works.is_set() for other in self._kept.values()):
                # Everything is synced: take what lives for ever out of the garbage collector's sight.
                gc.collect()
                gc.freeze()

        def registers() -> bool:
            return name not in self._leaving

        async def start() -> None:
            session = Session(*wanted, home, self._metrics, works, registers, self._now)
            kept.session = session
            try:
                await session.run()
            finally:
                kept.works.clear()
                gc.unfreeze()  # what was frozen may be this session's by now: let it be collected

        def ended(error: str) -> None:
            self.failures[name] = error

        kept.task = group.create_task(keep(name, start, self._metrics, ended), name=name)
