"""The namespaces at a peer that hold our Pods: made on demand, marked as ours, removed with their home namespace.

A namespace there that is not marked as ours for exactly this home namespace is never used.
"""

import asyncio
import logging
from contextlib import suppress

from vnode import names
from vnode.errors import Conflict, NotFound
from vnode.kube.client import JSON, NAMESPACES, PODS, Client
from vnode.kube.objects import Key, Object, parse_list, parse_object
from vnode.policy.route import Refused, Route
from vnode.runtime.store import Store

log = logging.getLogger(__name__)


class RemoteNamespaces:
    """`local` is the store of home's namespaces. What has been seen to be ours is remembered until it fails."""

    def __init__(self, peer: Client, route: Route, local: Store) -> None:
        self._peer = peer
        self._route = route
        self._local = local
        self._known: set[str] = set()
        self._making: dict[str, asyncio.Lock] = {}

    async def ensure(self, namespace: str) -> None:
        """Have the remote namespace of home's `namespace`. Raises `Refused` when it is not ours, or `ApiError`."""
        if namespace in self._known:
            return
        # One maker a namespace: a burst's first Pods all come here at once.
        async with self._making.setdefault(namespace, asyncio.Lock()):
            if namespace not in self._known:
                await self._make(namespace)
                self._known.add(namespace)
        self._making.pop(namespace, None)

    def doubt(self, namespace: str) -> None:
        """Look again next time: the peer has just said that the namespace is not there."""
        self._known.discard(namespace)

    async def _make(self, namespace: str) -> None:
        name = self._route.remote_namespace(namespace)
        try:
            found = parse_object(await self._peer.get(NAMESPACES, Key("", name)))
        except NotFound:
            manifest = {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {
                    "name": name,
                    "labels": self._route.labels,
                    "annotations": {names.ORIGIN_NAMESPACE: namespace},
                },
            }
            try:
                await self._peer.create(NAMESPACES, "", manifest)
            except Conflict:
                found = parse_object(await self._peer.get(NAMESPACES, Key("", name)))
            else:
                log.info("namespace created", extra={"namespace": namespace, "remote": name})
                return
        if not self._route.owns(found) or found.meta.annotations.get(names.ORIGIN_NAMESPACE) != namespace:
            raise Refused(
                names.REMOTE_NAMESPACE_TAKEN,
                f"namespace {name} exists at the peer and is not marked as ours for {namespace}",
            )

    async def sweep(self) -> None:
        """Remove those of our namespaces at the peer whose home namespace is gone, unless others' Pods are in them."""
        for found in await self._all():
            if self._local.get(Key("", found.meta.annotations.get(names.ORIGIN_NAMESPACE, ""))) is None:
                await self._remove(found)

    async def remove_all(self) -> None:
        """Remove every namespace of ours at the peer in which no others' Pods are."""
        for found in await self._all():
            await self._remove(found)

    async def _all(self) -> list[Object]:
        page = await self._peer.list_page(NAMESPACES, "", {"labelSelector": self._route.selector})
        return [found for found in parse_list(page)[0] if not found.leaving]

    async def _remove(self, found: Object) -> None:
        self._known.discard(found.meta.annotations.get(names.ORIGIN_NAMESPACE, ""))
        foreign = f"{names.ORIGIN_CLUSTER_UID}!={self._route.cluster_uid}"
        others = await self._peer.list_page(PODS, found.meta.name, {"labelSelector": foreign, "limit": "1"}, JSON)
        if parse_list(others)[0]:
            log.warning("namespace left at the peer: others' pods are in it", extra={"remote": found.meta.name})
            return
        with suppress(NotFound, Conflict):  # gone, or somebody else's by now
            await self._peer.delete(NAMESPACES, found.key, uid=found.uid)
            log.info("namespace removed", extra={"remote": found.meta.name})
