"""What must not stay at a peer: swept while its session runs, cleared once its Node is gone. Made by `session`."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress

from vnode.errors import ApiError, Conflict, NotFound
from vnode.kube.client import PODS, Client
from vnode.kube.objects import Key, Object
from vnode.node.removal import is_foreign
from vnode.peers.home import Home
from vnode.reflect.controller import Reflector
from vnode.reflect.namespaces import RemoteNamespaces
from vnode.runtime.informer import Informer

log = logging.getLogger(__name__)

SWEEP_RETRY_S = 30.0


class Leftovers:
    """Mirrors, copies and namespaces of ours at the peer; `local` follows at home the Pods of `node`."""

    def __init__(
        self,
        *,
        home: Home,
        peer: Client,
        node: str,
        local: Informer,
        remote: Informer,
        copies: Sequence[Informer],
        reflector: Reflector,
        namespaces: RemoteNamespaces,
    ) -> None:
        self._home = home
        self._peer = peer
        self._node = node
        self._local = local
        self._remote = remote
        self._copies = copies
        self._reflector = reflector
        self._namespaces = namespaces

    @property
    def places(self) -> Counter[str]:
        """How many objects of ours were there when the peer was last seen, by its namespaces."""
        return Counter(item.key.namespace for informer in (self._remote, *self._copies) for item in informer.store)

    async def clear(self, say: Callable[[str], None]) -> None:
        """The Node being gone, wait until nothing of ours is left at the peer, then remove our namespaces there.

        What a DaemonSet's controller put back while the Node was going is deleted at home, and so ends at the peer. Has
        somebody else a Node of the name by now, the Pods at home are theirs, and ours end at the peer alone.
        """
        told = -1
        while left := self.places.total():
            if left != told:
                say(f"{self._peer.side}: {left} objects still go at the peer")
                told = left
            await asyncio.sleep(0.5)
            if await is_foreign(self._home.client, self._node, self._home.identity):
                for local in self._local.store:
                    self._reflector.use(local.key, ())
                await _delete_all(self._peer, self._remote)
            else:
                await _delete_all(self._home.client, self._local)
            await self._reflector.remove_strays(self._remote.store)
        await self._namespaces.remove_all()

    async def sweep(self, wake: Callable[[str], None]) -> None:
        """Remove remote namespaces when their home namespace goes; at the start, those that went while we were away.

        `wake` is called with each namespace whose labels have changed.
        """
        gone = asyncio.Event()
        gone.set()

        def changed(key: Key, before: Object | None, now: Object | None) -> None:
            if now is None:
                gone.set()
            elif before is None or before.meta.labels != now.meta.labels:
                wake(key.name)

        unsubscribe = self._home.namespaces.on_change(changed)
        try:
            while True:
                await gone.wait()
                gone.clear()
                try:
                    await self._reflector.remove_strays(self._remote.store)
                    await self._namespaces.sweep()
                except ApiError as error:
                    log.info("namespaces not swept, will retry", extra={"error": str(error)})
                    await asyncio.sleep(SWEEP_RETRY_S)
                    gone.set()
        finally:
            unsubscribe()


async def _delete_all(client: Client, pods: Informer) -> None:
    for pod in list(pods.store):
        if not pod.leaving:
            with suppress(NotFound, Conflict):
                await client.delete(PODS, pod.key, uid=pod.uid)
