"""An informer: `follow` -> `Store` -> handlers, told what changed. One watch, or one for each of a few namespaces.

Handlers are synchronous and quick (they put keys into queues); what they raise is a bug and ends the session.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace

from vnode.kube.objects import Key, Object, metadata_alone
from vnode.kube.watch import Backoff, Listed, Source, follow
from vnode.runtime.store import Store

Handler = Callable[[Key, Object | None, Object | None], None]  # key, before, now
SLICE = 100  # changes told between two turns of the loop


class Informer:
    """Keeps `store` equal to what `source` shows in `namespaces` ("": in all); `run` for ever, in a task of its own."""

    def __init__(
        self, name: str, source: Source, store: Store | None = None, namespaces: Iterable[str] = ("",)
    ) -> None:
        self.name = name
        if store is None:  # an empty one is false
            # `learn` brings whole objects, as the apiserver answers them.
            store = Store(metadata_alone if source.metadata_only else None)
        self.store = store
        self._source = source
        self._handlers: list[Handler] = []
        self._on_listed: list[Callable[[], None]] = []
        self._synced = asyncio.Event()
        self._namespaces = frozenset(namespaces)
        self._unlisted = set(self._namespaces)
        self._following: dict[str, asyncio.Task[None]] = {}

    @property
    def current(self) -> bool:
        """True once everything is listed, as long as nobody has said since that what we hold may be old."""
        return not self._unlisted

    def current_in(self, namespace: str) -> bool:
        """Likewise of one namespace: another one's, which is gone or refused, does not count."""
        return self._unlisted.isdisjoint(("", namespace))

    def on_change(self, handler: Handler) -> Callable[[], None]:
        """Call `handler(key, before, now)` for every change, in order, until what is returned here is called."""
        self._handlers.append(handler)
        return lambda: self._handlers.remove(handler)

    def on_listed(self, handler: Callable[[], None]) -> None:
        """Call `handler` after each list is in the store and its changes are told."""
        self._on_listed.append(handler)

    def doubt(self) -> None:
        """The server does not answer: what we hold may be old (`current`) until it has been listed again."""
        self._unlisted = set(self._namespaces)

    def refresh(self) -> None:
        """List anew, now: the server answers again, and our stream may be dead without knowing it."""
        self.doubt()
        for task in self._following.values():
            task.cancel()

    @property
    def is_synced(self) -> bool:
        return self._synced.is_set()

    async def synced(self) -> None:
        """Wait until the first list is in the store and its handlers have been told."""
        await self._synced.wait()

    def learn(self, item: Object) -> None:
        """Take in what the apiserver has just answered, and tell the handlers, before the watch does."""
        self._tell(self.store.learn(item))

    def forget(self, key: Key, uid: str) -> None:
        """Likewise, that an object is not there."""
        self._tell(self.store.forget(key, uid))

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as group:
            for namespace in self._namespaces:
                group.create_task(self._keep(namespace), name=f"{self.name}/{namespace}")

    async def _keep(self, namespace: str) -> None:
        while True:
            async with asyncio.TaskGroup() as group:  # a child that `refresh` cancels ends it quietly
                self._following[namespace] = group.create_task(
                    self._follow(namespace), name=f"{self.name}/{namespace}/follow"
                )

    async def _follow(self, namespace: str) -> None:
        async for event in follow(replace(self._source, namespace=namespace), Backoff()):
            changes, told = self.store.apply(event), 0
            try:
                while told < len(changes):
                    told += SLICE
                    self._tell(changes[told - SLICE : told])
                    if len(changes) > SLICE:
                        await asyncio.sleep(0)
            finally:
                self._tell(changes[told:])  # the store has them: what `refresh` cut short here would never be told
            if isinstance(event, Listed):
                self._listed(namespace)

    def _listed(self, namespace: str) -> None:
        self._unlisted.discard(namespace)
        if self.current:
            self._synced.set()
        if self.is_synced:
            for handler in self._on_listed:
                handler()

    def _tell(self, changes: list[tuple[Key, Object | None, Object | None]]) -> None:
        for key, before, now in changes:
            for handler in tuple(self._handlers):
                handler(key, before, now)
