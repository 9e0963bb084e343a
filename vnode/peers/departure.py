"""The way out of one Peer that is being deleted: its Node is drained, then what is ours at the peer goes.

A peer that is gone for ever cannot be cleared. Somebody says so, by the Peer's annotation, and then what cannot be
reached is left behind: the Pods and the Node go at home, and `left` says what may still be over there. Made and kept by
`peers.controller`.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

from vnode import names
from vnode.config import PeerSpec
from vnode.errors import NotFound, VnodeError
from vnode.kube.objects import Key
from vnode.kube.watch import Backoff
from vnode.node.removal import ForeignNode, abandon, drain_and_remove
from vnode.peers.fleet import Fleet
from vnode.peers.home import Home

log = logging.getLogger(__name__)

CLEAR_LOOK_S: Final = 20.0  # then look whether another session serves the peer by now
LAST_TRY_S: Final = 10.0  # for what can be cleared of a peer that is abandoned
NAMED: Final = 10  # namespaces that are named in a message


class Departure:
    """`run` it under `keep`; it is over once `done`. `changed` is called when `message` is another one, and at the end.

    `drains` is False where another Peer has the Node: it stays as it is. `reached` says whether the peer has ever
    answered: if not, nothing of ours can be there.
    """

    def __init__(
        self,
        name: str,
        node: str,
        spec: PeerSpec | None,
        home: Home,
        fleet: Fleet,
        *,
        drains: bool,
        reached: Callable[[], bool],
        changed: Callable[[], None],
    ) -> None:
        self.message = "begins"
        self.left = ""  # what was left behind; "" when all went in order
        self.done = False
        self._name, self._node, self._spec = name, node, spec
        self._home, self._fleet, self._reached, self._changed = home, fleet, reached, changed
        self._drains = drains
        self._deadline: float | None = None
        self._limit: asyncio.Timeout | None = None

    def abandon_in(self, seconds: float | None) -> None:
        """Leave behind what has not gone in so many seconds; None: wait as long as it takes."""
        now = asyncio.get_running_loop().time()
        self._deadline = None if seconds is None else now + max(0.0, seconds)
        if self._limit is not None:
            with suppress(RuntimeError):  # `run` is past it
                self._limit.reschedule(self._deadline)

    async def run(self) -> None:
        """Bring it to its end, then do nothing more until cancelled."""
        try:
            async with asyncio.timeout_at(self._deadline) as self._limit:
                await self._until_done(self._in_order)
        except TimeoutError:
            await self._until_done(self._abandon)
        self.done = True
        self._changed()
        await asyncio.Event().wait()

    async def _until_done(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        backoff = Backoff(base_s=0.5, cap_s=15.0)
        while True:
            try:
                await work()
            except VnodeError as error:
                self._say(str(error))
                await asyncio.sleep(backoff.next())
            else:
                return

    async def _in_order(self) -> None:
        if self._drains:
            with suppress(NotFound, ForeignNode):  # never made, or gone already
                await drain_and_remove(self._home.client, self._node, self._home.identity, self._say, None)
        if self._reached():
            await self._clear()

    async def _clear(self) -> None:
        """Have everything of ours removed at the peer, by whatever session serves it."""
        while True:
            self._say("waits for the peer, to remove what is ours there")
            session = await self._fleet.working(self._name)
            with suppress(TimeoutError):
                async with asyncio.timeout(CLEAR_LOOK_S):
                    await session.leftovers.clear(self._say)
                    return

    async def _abandon(self) -> None:
        session = self._fleet.session(self._name)
        places = session.leftovers.places if session is not None else Counter[str]()
        pods: list[Key] = []
        if self._drains:
            with suppress(NotFound, ForeignNode):
                pods = await abandon(self._home.client, self._node, self._home.identity)
        if session is not None and session.facts.answers:
            with suppress(VnodeError, TimeoutError):  # it was not the peer that was in the way: do what can be done
                async with asyncio.timeout(LAST_TRY_S):
                    await session.leftovers.clear(self._say)
            places = session.leftovers.places
        elif not places and self._spec is not None:
            rules = self._spec.namespace_map(self._home.identity.cluster)
            places = Counter(rules.remote(pod.namespace) for pod in pods)
        self.left = self._leaves(places)

    def _leaves(self, places: Counter[str]) -> str:
        if not places:
            return ""
        named = ", ".join(sorted(places)[:NAMED]) + (", …" if len(places) > NAMED else "")
        selector = f"{names.ORIGIN_NODE}={self._node},{names.ORIGIN_CLUSTER_UID}={self._home.identity.cluster_uid}"
        return (
            f"left behind at the peer: {places.total()} objects in {named}; Pods among them may run on. "
            f"Should it come back, delete there what is labelled {selector}"
        )

    def _say(self, message: str) -> None:
        if message != self.message:
            self.message = message
            log.info("peer leaves", extra={"peer": self._name, "progress": message})
            self._changed()
