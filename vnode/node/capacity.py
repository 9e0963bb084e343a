"""What a peer has for our Pods: the sum of its usable nodes, less what others' Pods request there, within limits. Pure.

`controller` feeds it from two stores of the peer, its Nodes (shrunk by `slim_node`) and the Pods that are not ours
(shrunk by `requests.share_of`), and puts the result into the virtual Node's status.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

import msgspec

from vnode import names
from vnode.kube.objects import Meta, Object, format_quantity, quantity
from vnode.node.images import Image, images_json, read_images
from vnode.node.requests import HUGE_PAGES, Amounts, added, read_share, readable

ALWAYS: Final = ("cpu", "memory", "pods", "ephemeral-storage")  # a Node without one of these counts as not ready
DEFAULT_PODS: Final = Decimal(110)  # the kubelet's maxPods
NOTABLE: Final = Decimal("0.01")
_BINARY: Final = ("memory", "ephemeral-storage", HUGE_PAGES)
_ZERO: Final = Decimal(0)
_QUOTA: Final = {
    "cpu": "cpu",
    "requests.cpu": "cpu",
    "memory": "memory",
    "requests.memory": "memory",
    "requests.ephemeral-storage": "ephemeral-storage",
    "pods": "pods",
    "count/pods": "pods",
}

# Taints by which a cluster says that a node is not for users' Pods now, or at all. Others (a GPU's, a team's) are
# tolerated by the Pods such nodes are for: those nodes count, unless `capacity.nodeSelector` leaves them out.
_CLOSED: Final = ("node.kubernetes.io/", "node.cloudprovider.kubernetes.io/", "node-role.kubernetes.io/")


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the virtual Node offers, as its status says it."""

    capacity: Mapping[str, str]
    allocatable: Mapping[str, str]


NOTHING: Final = Capacity(dict.fromkeys(ALWAYS, "0"), dict.fromkeys(ALWAYS, "0"))


@dataclass(frozen=True, slots=True)
class PeerNode:
    """What counts of one of a peer's Nodes; `info` is its `nodeInfo`."""

    name: str
    labels: Mapping[str, str]
    usable: bool
    capacity: Amounts
    allocatable: Amounts
    info: Mapping[str, str] = field(default_factory=dict)
    features: frozenset[str] = frozenset()
    images: tuple[Image, ...] = ()


def slim_node(node: Object) -> Object:
    """A store's transform: a Node without what each heartbeat changes, so that only what counts is told."""
    spec, status = node.spec(), node.status()
    ready = [
        {"type": "Ready", "status": condition["status"]}
        for condition in status.get("conditions") or ()
        if condition["type"] == "Ready"
    ]
    kept = {key: status.get(key) for key in ("capacity", "allocatable", "nodeInfo", "declaredFeatures")}
    meta = Meta(
        name=node.meta.name,
        uid=node.meta.uid,
        resource_version=node.meta.resource_version,
        labels=node.meta.labels,
    )
    return Object(
        meta,
        msgspec.json.encode({key: spec.get(key) for key in ("unschedulable", "taints")}),
        msgspec.json.encode({**kept, "conditions": ready, "images": images_json(read_images(status.get("images")))}),
    )


def peer_node(node: Object) -> PeerNode:
    """What counts of a Node; usable is one that is ready, takes users' Pods, and is not itself virtual."""
    spec, status, labels = node.spec(), node.status(), node.meta.labels
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or ())
    closed = any(
        taint.get("effect") in ("NoSchedule", "NoExecute") and taint["key"].startswith(_CLOSED)
        for taint in spec.get("taints") or ()
    )
    virtual = labels.get("type") == "virtual-kubelet" or names.PEER in labels
    return PeerNode(
        node.meta.name,
        labels,
        ready and not closed and not virtual and not spec.get("unschedulable"),
        _countable(status.get("capacity")),
        _countable(status.get("allocatable")),
        status.get("nodeInfo") or {},
        frozenset(status.get("declaredFeatures") or ()),
        read_images(status.get("images")),
    )


def eligible(nodes: Iterable[PeerNode], selector: Mapping[str, str]) -> list[PeerNode]:
    """The usable ones of `nodes` that have all labels of `selector`."""
    return [node for node in nodes if node.usable and selector.items() <= node.labels.items()]


class Usage:
    """What others' Pods take at a peer, by node: kept up to date by the changes of their store."""

    def __init__(self) -> None:
        self._taken: dict[str, dict[str, Decimal]] = {}

    def changed(self, before: Object | None, now: Object | None) -> None:
        """Take in one change, as an informer tells it. Both objects are what `requests.share_of` left."""
        for pod, sign in ((before, -1), (now, 1)):
            if pod is not None:
                node, amounts = read_share(pod)
                sums = added((self._taken.get(node, {}), {name: sign * amount for name, amount in amounts.items()}))
                self._taken[node] = {name: amount for name, amount in sums.items() if amount}
                if not self._taken[node]:
                    del self._taken[node]

    def on(self, node: str) -> Amounts:
        """What is taken on `node`."""
        return self._taken.get(node, {})


def offered(nodes: Iterable[PeerNode], usage: Usage, limits: Mapping[str, str]) -> Capacity:
    """What eligible `nodes` have, and have left for us, neither more than `limits`.

    A node on which others ask for more than it has adds nothing; it takes nothing from the others.
    """
    nodes = list(nodes)
    capacity = added((dict.fromkeys(ALWAYS, _ZERO), *(node.capacity for node in nodes)))
    left = added((dict.fromkeys(capacity, _ZERO), *(_left(node, usage.on(node.name)) for node in nodes)))
    return _capped(capacity, left, limits)


def limits_alone(limits: Mapping[str, str]) -> Capacity:
    """What to offer of a peer whose nodes we may not list: the limits; without `pods` in them, a kubelet's 110."""
    amounts = dict.fromkeys(ALWAYS, _ZERO) | {"pods": DEFAULT_PODS}
    amounts |= {name: quantity(limit) for name, limit in limits.items()}
    return _capped(amounts, amounts, limits)


def within_quotas(quotas: Iterable[Object], limits: Mapping[str, str]) -> Capacity:
    """What to offer of a few namespaces at a peer: what their ResourceQuotas leave us, within `limits`.

    Of several in one namespace the least of each resource counts; those with scopes are for some Pods only, and do not.
    A quota counts what others have in the namespace too: the peer's apiserver has the last word.
    """
    by_namespace: dict[str, dict[str, Decimal]] = {}
    for quota in quotas:
        if not {"scopes", "scopeSelector"} & quota.spec().keys():
            sums = by_namespace.setdefault(quota.meta.namespace, {})
            for name, amount in readable(quota.status().get("hard")).items():
                if resource := _QUOTA.get(name) or (name.removeprefix("requests.") if "/" in name else ""):
                    sums[resource] = min(sums.get(resource, amount), amount)
    if not by_namespace:
        return limits_alone(limits)
    amounts = dict.fromkeys(ALWAYS, _ZERO) | {"pods": DEFAULT_PODS}
    amounts |= {name: quantity(limit) for name, limit in limits.items()} | added(by_namespace.values())
    return _capped(amounts, amounts, limits)


def notable(before: Capacity, now: Capacity) -> bool:
    """Whether a change is worth a write at once: of capacity any, of allocatable by over 1 %, or to or from 0."""
    if before.capacity != now.capacity or before.allocatable.keys() != now.allocatable.keys():
        return True
    for name, text in now.allocatable.items():
        new, old = quantity(text), quantity(before.allocatable[name])
        if abs(new - old) > NOTABLE * quantity(now.capacity[name]) or (new != old and not new * old):
            return True
    return False


def _left(node: PeerNode, taken: Amounts) -> dict[str, Decimal]:
    return {name: max(_ZERO, amount - taken.get(name, _ZERO)) for name, amount in node.allocatable.items()}


def _capped(capacity: Amounts, allocatable: Amounts, limits: Mapping[str, str]) -> Capacity:
    def text(amounts: Amounts) -> dict[str, str]:
        within = {
            name: min(amount, quantity(limits[name])) if name in limits else amount for name, amount in amounts.items()
        }
        return {name: format_quantity(within[name], binary=name.startswith(_BINARY)) for name in sorted(within)}

    # Never more allocatable than there is, whatever a peer's Node says of itself.
    return Capacity(text(capacity), text({name: min(amount, allocatable[name]) for name, amount in capacity.items()}))


def _countable(amounts: Mapping[str, Any] | None) -> dict[str, Decimal]:
    # Volumes a machine can attach are not the cluster's sum: the peer's scheduler alone can count them.
    return {name: amount for name, amount in readable(amounts).items() if not name.startswith("attachable-volumes-")}
