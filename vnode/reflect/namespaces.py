"""The namespaces at a peer that hold our Pods: made on demand, marked as ours, removed with their home namespace.

A namespace there that is not marked as ours for exactly this home namespace is never used. One that its admin has
handed to us by marking it is used, and never deleted: only what we have made goes.
"""

import asyncio
import logging
from contextlib import suppress

from vnode import names
from vnode.errors import Conflict, NotFound
from vnode.kube.client import JSON, NAMESPACES, PODS, Client
from vnode.kube.objects import Key, Object, parse_list, parse_object
from vnode.kube.watch import Source
from vnode.policy.route import Refused, Route
from vnode.runtime.store import Store

log = logging.getLogger(__name__)


class RemoteNamespaces:
    """`local` is the store of home's namespaces. What has been seen to be ours is remembered until it fails.

    `given`: all of them are given by configuration and by the rights we have in them: none is looked at or made.
    """

    def __init__(self, peer: Client, route: Route, local: Store, *, given: bool = False) -> None:
        self._peer = peer
        self._route = route
        self._local = local
        self._given = given
        self._known: set[str] = set()
        self._making: dict[str, asyncio.Lock] = {}
        self._left: dict[str, tuple[str, str, str]] = {}  # uid, version, why: said once of each state

    async def ensure(self, namespace: str) -> None:
        """Have the remote namespace of home's `namespace`. Raises `Refused` when it is not ours, or `ApiError`."""
        if self._given or namespace in self._known:
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
                    "annotations": {names.ORIGIN_NAMESPACE: namespace, names.CREATED: "true"},
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
        """Remove the namespaces we made whose home namespace is gone, unless others' Pods are in them."""
        for found in await self._all():
            if self._local.get(Key("", found.meta.annotations.get(names.ORIGIN_NAMESPACE, ""))) is None:
                await self._remove(found)

    async def remove_all(self) -> None:
        """Remove every namespace we made at the peer in which no others' Pods are."""
        for found in await self._all():
            await self._remove(found)

    async def _all(self) -> list[Object]:
        if self._given:
            return []
        source = Source(self._peer, NAMESPACES, {"labelSelector": self._route.selector}, metadata_only=True)
        found = [item for item in (await source.list()).items if not item.leaving]
        present = {item.meta.name for item in found}
        self._left = {name: state for name, state in self._left.items() if name in present}
        return found

    async def _remove(self, found: Object) -> None:
        origin = found.meta.annotations.get(names.ORIGIN_NAMESPACE, "")
        self._known.discard(origin)
        if not origin or names.CREATED not in found.meta.annotations:
            self._leave(found, "it was handed to us, not made by us", logging.INFO)
            return
        foreign = f"{names.ORIGIN_CLUSTER_UID}!={self._route.cluster_uid}"
        others = await self._peer.list_page(PODS, found.meta.name, {"labelSelector": foreign, "limit": "1"}, JSON)
        if parse_list(others)[0]:
            self._leave(found, "others' pods are in it", logging.WARNING)
            return
        with suppress(NotFound, Conflict):  # gone, or somebody else's by now
            await self._peer.delete(NAMESPACES, found.key, uid=found.uid)
            log.info("namespace removed", extra={"remote": found.meta.name})

    def _leave(self, found: Object, why: str, level: int) -> None:
        state = (found.uid, found.meta.resource_version, why)
        if self._left.get(found.meta.name) != state:
            self._left[found.meta.name] = state
            log.log(level, "namespace left at the peer", extra={"remote": found.meta.name, "reason": why})
