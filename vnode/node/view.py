"""What one peer has to offer, kept current from its two stores: its Nodes, and the Pods there that are not ours.

Changes are told often and matter rarely, so the sum is made by whoever calls `sum_up`, and small changes of it are
held back. Owned by `controller`; `peers.session` makes and runs the informers.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from vnode import names
from vnode.config import PeerSpec
from vnode.errors import ApiError
from vnode.kube.client import NODES, PODS, Client, Resource
from vnode.kube.objects import Key, Object
from vnode.kube.watch import Source
from vnode.node.capacity import (
    Capacity,
    PeerNode,
    Usage,
    eligible,
    limits_alone,
    notable,
    offered,
    peer_node,
    slim_node,
    within_quotas,
)
from vnode.node.manifest import PeerFacts, peer_facts
from vnode.node.requests import share_of
from vnode.runtime.informer import Informer
from vnode.runtime.store import Store

log = logging.getLogger(__name__)

RESOURCE_QUOTAS: Final = Resource("/api/v1", "resourcequotas")
SMALL_CHANGE_S: Final = 30.0  # what is not notable waits this long
VERSION_LIMIT_S: Final = 5.0


def nodes_informer(peer: Client) -> Informer:
    """An informer of the peer's Nodes, as `PeerView` takes it.

    A refusal ends its `run` with `Rejected`: the peer was away when it was asked whether it allows this, and the
    session is to start anew without.
    """
    return Informer("peer-nodes", Source(peer, NODES, optional=True), Store(slim_node))


def quotas_informer(peer: Client, namespaces: Iterable[str]) -> Informer:
    """An informer of the ResourceQuotas in a few namespaces of the peer, as `PeerView` takes it."""
    return Informer("peer-quotas", Source(peer, RESOURCE_QUOTAS), namespaces=namespaces)


def others_informer(peer: Client, cluster_uid: str) -> Informer:
    """An informer of the peer's running Pods but those of the home cluster `cluster_uid`, as `PeerView` takes it.

    The server leaves ours out, or each of them would come twice. It can leave out one label's value, not a pair of
    two: of two virtual nodes on one peer cluster, neither sees the Pods of the other. A refusal ends its `run`, too.
    """
    selectors = {
        "labelSelector": f"{names.ORIGIN_CLUSTER_UID}!={cluster_uid}",
        "fieldSelector": "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed",
    }
    return Informer("others-pods", Source(peer, PODS, selectors, optional=True), Store(share_of(cluster_uid)))


class _Version(msgspec.Struct, rename="camel"):
    git_version: str


class PeerView:
    """The peer's capacity and facts. `changed` is called, synchronously, whenever `sum_up` may find something new.

    To be made before `nodes`, `others` and `quotas` run. They are None where the credential may not list them; quotas
    stand in for nodes where we have a few namespaces only, and are waited for by nobody.
    """

    def __init__(
        self,
        peer: Client,
        spec: PeerSpec,
        nodes: Informer | None,
        others: Informer | None,
        changed: Callable[[], None],
        quotas: Informer | None = None,
    ) -> None:
        self.capacity: Capacity | None = None  # as of the last `sum_up`; None before the stores are filled
        self._peer, self._spec, self._nodes, self._others, self._quotas = peer, spec, nodes, others, quotas
        self._changed = changed
        self._peer_nodes: dict[str, PeerNode] = {}
        self._usage = Usage()
        self._small_since: float | None = None
        self._version: str | None = None
        if nodes is not None:
            nodes.on_change(self._node_changed)
        if others is not None:
            others.on_change(self._others_changed)
        if quotas is not None:
            quotas.on_change(lambda *_: changed())

    @property
    def version_known(self) -> bool:
        return self._version is not None

    @property
    def version(self) -> str:
        """The peer's Kubernetes version, "" as long as it is not known."""
        return self._version or ""

    async def synced(self) -> None:
        """Wait until both stores are filled."""
        for informer in (self._nodes, self._others):
            if informer is not None:
                await informer.synced()

    def sum_up(self) -> float | None:
        """Bring `capacity` up to date; after how many seconds to come again for a small change held back, or None."""
        now = self._offer()
        if now is None or now == self.capacity:
            self._small_since = None
            return None
        if self.capacity is not None and not notable(self.capacity, now):
            moment = asyncio.get_running_loop().time()
            self._small_since = moment if self._small_since is None else self._small_since
            if moment < self._small_since + SMALL_CHANGE_S:
                return self._small_since + SMALL_CHANGE_S - moment
        self.capacity, self._small_since = now, None
        return None

    def facts(self) -> PeerFacts | None:
        """The facts of the peer, None as long as they are not all known."""
        if self._version is None or (self._nodes is not None and not self._nodes.is_synced):
            return None
        return peer_facts(self._version, self._eligible())

    def forget_version(self) -> None:
        """The peer was away, perhaps for an upgrade: ask again."""
        self._version = None

    async def ask_version(self) -> None:
        """Learn the peer's version, where it tells it."""
        try:
            answer = await self._peer.get_path("/version", limit_s=VERSION_LIMIT_S)
            self._version = msgspec.json.decode(answer, type=_Version).git_version
        except (ApiError, msgspec.MsgspecError) as error:
            log.warning("peer does not tell its version", extra={"peer": self._spec.name, "error": str(error)})

    def _node_changed(self, key: Key, _: Object | None, now: Object | None) -> None:
        if now is None:
            self._peer_nodes.pop(key.name, None)
        else:
            self._peer_nodes[key.name] = peer_node(now)
        self._changed()

    def _others_changed(self, _: Key, before: Object | None, now: Object | None) -> None:
        self._usage.changed(before, now)
        self._changed()

    def _offer(self) -> Capacity | None:
        limits = self._spec.capacity.limits
        if self._quotas is not None:
            return within_quotas(self._quotas.store, limits)
        if self._nodes is None:
            return limits_alone(limits)
        if not self._nodes.is_synced or (self._others is not None and not self._others.is_synced):
            return None
        return offered(self._eligible(), self._usage, limits)

    def _eligible(self) -> list[PeerNode]:
        return eligible(self._peer_nodes.values(), self._spec.capacity.nodeSelector)
