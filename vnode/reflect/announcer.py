"""Follows the Events of the peer's Pods and writes those about our mirrors at home, where `kubectl describe` looks.

Nothing here is in a Pod's way: without the right to read Events a peer just shows none, and an Event whose Pod is gone
is forgotten. Rates are bounded a Pod (client-go's spam filter, `events_cache.go`: 25 at once, then one in 5 minutes);
memory by `REMEMBERED`. Built by `peers.session`.
"""

import asyncio
import logging
from collections.abc import Iterable
from typing import Final

from cachetools import LRUCache

from vnode import names
from vnode.errors import ApiError, Conflict, NotFound, Rejected
from vnode.kube.client import EVENTS, MERGE_PATCH, Client
from vnode.kube.objects import Key, Object
from vnode.kube.watch import Applied, Backoff, Listed, Source, follow
from vnode.policy.route import local_key
from vnode.reflect.events import Happening, again, event_name, happening, home_event
from vnode.runtime.controller import Controller
from vnode.runtime.store import Store
from vnode.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

BURST: Final = 25.0
REFILL_PER_S: Final = 1 / 300
REMEMBERED: Final = 5000
WORKERS: Final = 2
POD_EVENTS: Final = {"fieldSelector": "involvedObject.kind=Pod"}


class Announcer:
    """`local` holds the Pods of our node, `remote` our Pods at the peer, which are in `places` ("": anywhere)."""

    def __init__(
        self, home: Client, peer: Client, local: Store, remote: Store, metrics: Metrics, places: Iterable[str] = ("",)
    ) -> None:
        self._home = home
        self._peer = peer
        self._local = local
        self._remote = remote
        self._sources = [Source(peer, EVENTS, POD_EVENTS, flat=True, optional=True, namespace=it) for it in places]
        self._waiting: LRUCache[Key, Object] = LRUCache(REMEMBERED)  # what is to be written, newest state, by Event
        self._written: LRUCache[str, int] = LRUCache(REMEMBERED)  # uid of the peer's Event -> count at home
        self._spent: LRUCache[str, tuple[float, float]] = LRUCache(REMEMBERED)  # uid of the Pod -> tokens left, since
        self.controller: Controller[Key] = Controller("events", peer.side, self._write, metrics, WORKERS)

    async def run(self, since: str) -> None:
        """Follow and write until cancelled. `since` (RFC 3339): what happened before it has been told."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.controller.run(), name=f"{self._peer.side}/events-up/write")
            for source in self._sources:
                name = f"{self._peer.side}/events-up/follow/{source.namespace}"
                group.create_task(self._follow(source, since), name=name)

    async def _follow(self, source: Source, since: str) -> None:
        seen = -1
        try:
            async for event in follow(source, Backoff()):
                if isinstance(event, Listed):
                    for item in event.items:
                        # Later lists tell what came after the last event seen; the first, what came since we last ran.
                        if item.version > seen if seen >= 0 else _last(item) > since:
                            self._note(item)
                    seen = event.version
                elif isinstance(event, Applied):
                    seen = max(seen, event.item.version)
                    self._note(event.item)
        except Rejected as error:
            log.warning("the peer's events are not shown", extra={"peer": self._peer.side, "error": str(error)})

    def _note(self, event: Object) -> None:
        found = happening(event)
        if found is not None and self._whose(found) is not None:
            self._waiting[event.key] = event
            self.controller.queue.add(event.key)

    def _whose(self, found: Happening) -> Object | None:
        """The home Pod whose own mirror it happened to."""
        mirror = self._remote.get(found.place)
        if mirror is None or mirror.uid != found.involved_object.uid:
            return None
        local = self._local.get(local_key(mirror))
        return local if local is not None and local.uid == mirror.meta.annotations.get(names.ORIGIN_UID) else None

    async def _write(self, key: Key) -> None:
        event = self._waiting.get(key)
        found = happening(event) if event is not None else None
        if event is None or found is None:
            return
        local = self._whose(found)
        if local is not None and self._written.get(event.uid) != found.times and self._within_rate(local.uid):
            try:
                await self._tell(event, found, local)
            except Rejected as error:  # home would refuse it for ever: a namespace that goes, a field it does not take
                log.info("event not written", extra={"key": str(local.key), "error": str(error)})
            except ApiError:  # it is tried again, and one Event costs one token
                tokens, since = self._spent.get(local.uid, (BURST, 0.0))
                self._spent[local.uid] = (tokens + 1, since)
                raise
        if self._waiting.get(key) is event:
            del self._waiting[key]

    async def _tell(self, event: Object, found: Happening, local: Object) -> None:
        name = event_name(event, local)
        at_home = Key(local.meta.namespace, name)
        known = self._written.get(event.uid)
        if known is None:
            try:
                await self._home.create(EVENTS, at_home.namespace, home_event(found, name, local, self._peer.side))
            except Conflict:  # an earlier run of ours wrote it
                known = 0
        if known is not None:
            try:
                await self._home.patch(EVENTS, at_home, again(found), MERGE_PATCH)
            except NotFound:  # it has expired at home
                await self._home.create(EVENTS, at_home.namespace, home_event(found, name, local, self._peer.side))
        self._written[event.uid] = found.times

    def _within_rate(self, uid: str) -> bool:
        moment = asyncio.get_running_loop().time()
        tokens, since = self._spent.get(uid, (BURST, moment))
        tokens = min(BURST, tokens + (moment - since) * REFILL_PER_S)
        allowed = tokens >= 1
        self._spent[uid] = (tokens - allowed, moment)
        return allowed


def _last(event: Object) -> str:
    found = happening(event)
    return found.last if found else ""
