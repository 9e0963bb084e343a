"""An informer that sees no more than it must: all namespaces where it may, else those whose objects are in use.

A watch of all Secrets is the right to read all Secrets. Where that is not given, each namespace in use has a watch of
its own, and needs a right of its own. Made by `app` for what `reflect` copies, and shared by all peers.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Final

from vnode.errors import ApiError, Rejected
from vnode.kube.watch import Backoff, Source
from vnode.runtime.informer import Informer

log = logging.getLogger(__name__)

REFUSED_AGAIN_S: Final = 5.0  # a right that is given later is found out in this time


@dataclass(slots=True)
class _Cover:
    """How it stands with one namespace; `refusal` is the server's word, "" while it is followed."""

    judged: asyncio.Event = field(default_factory=asyncio.Event)
    refusal: str = ""
    task: asyncio.Task[None] | None = None


class CoveringInformer(Informer):
    """As `Informer`; before a namespace's objects are looked up, it is to be `cover`ed.

    `everywhere` says whether all namespaces may be followed at once. It is asked once, when `run` begins. `exists` says
    whether there is a namespace of this name: one that is gone is followed for nobody.
    """

    def __init__(
        self, name: str, source: Source, everywhere: Callable[[], Awaitable[bool]], exists: Callable[[str], bool]
    ) -> None:
        super().__init__(name, source)
        self._everywhere, self._exists = everywhere, exists
        self._covers: dict[str, _Cover] | None = None  # None: all namespaces are followed at once
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Follow until cancelled."""
        if await self._sees_all():
            await super().run()
            return
        log.info(
            "rights are by namespace: each one in use is watched", extra={"resource": self._source.resource.plural}
        )
        self._source = replace(self._source, optional=True)
        self._namespaces = frozenset()
        self._covers = {}
        async with asyncio.TaskGroup() as self._group:
            self._unlisted.clear()
            self._synced.set()
            await asyncio.Event().wait()

    async def cover(self, namespace: str) -> None:
        """Return once what is in `namespace` is in the store. Raises `Rejected` where we may not read it."""
        await self.synced()
        if self._covers is None or self._group is None:
            return
        cover = self._covers.get(namespace)
        if cover is None:
            if not self._exists(namespace):
                return
            cover = self._covers[namespace] = _Cover()
            self._start(self._group, namespace, cover)
        await cover.judged.wait()
        if cover.refusal:
            raise Rejected(cover.refusal, 403, "Forbidden")

    def uncover(self, namespace: str) -> None:
        """The namespace is gone: follow it no longer."""
        cover = (self._covers or {}).pop(namespace, None)
        if cover is None or cover.task is None:
            return
        cover.task.cancel()
        cover.judged.set()  # who waits for it need not: there is nothing there
        self._unlisted.discard(namespace)
        for item in [item for item in self.store if item.key.namespace == namespace]:
            self.forget(item.key, item.uid)

    def doubt(self) -> None:
        """As `Informer`, of the namespaces that we follow: one we may not read is never listed."""
        super().doubt()
        self._unlisted |= {each for each, cover in (self._covers or {}).items() if not cover.refusal}

    def refresh(self) -> None:
        """As `Informer`, of each namespace by itself."""
        super().refresh()
        if self._group is not None:
            for namespace, cover in (self._covers or {}).items():
                self._start(self._group, namespace, cover)

    def _start(self, group: asyncio.TaskGroup, namespace: str, cover: _Cover) -> None:
        if cover.task is not None:
            cover.task.cancel()
        cover.task = group.create_task(self._serve(namespace, cover), name=f"{self.name}/{namespace}")

    async def _sees_all(self) -> bool:
        backoff = Backoff(base_s=0.5, cap_s=15.0)
        while True:
            try:
                return await self._everywhere()
            except ApiError as error:
                log.warning("cannot ask for our rights, will retry", extra={"error": str(error)})
                await asyncio.sleep(backoff.next())

    async def _serve(self, namespace: str, cover: _Cover) -> None:
        while True:
            try:
                await self._follow(namespace)
            except Rejected as error:
                if not cover.refusal:
                    detail = {"resource": self._source.resource.plural, "namespace": namespace, "error": error.message}
                    log.warning("may not read a namespace that is in use", extra=detail)
                cover.refusal = error.message
                cover.judged.set()
                self._unlisted.discard(namespace)
            await asyncio.sleep(REFUSED_AGAIN_S)

    def _listed(self, namespace: str) -> None:
        if self._covers is not None and (cover := self._covers.get(namespace)):
            cover.refusal = ""
            cover.judged.set()
        super()._listed(namespace)
