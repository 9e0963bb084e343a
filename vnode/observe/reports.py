"""What `status`, `peers` and `pods` tell: made from objects, shown by `render`, and as they are in JSON and YAML. Pure.

A peer here is what has a Node with our label, or a Peer object; both where both are there.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

import msgspec

from vnode import names
from vnode.observe import states
from vnode.observe.hops import Hops
from vnode.observe.objects import Event, Meta, Node, Peer, Pod

ERRORS: Final = 5
_TOPOLOGY: Final = "topology.kubernetes.io"


class _Told(msgspec.Struct, frozen=True, rename="camel"):
    """Part of a report."""


class Health(_Told, frozen=True):
    """`word` is `Ready`, or why not; `problem` explains it, empty where all is well."""

    word: str
    since: datetime | None = None
    problem: str = ""

    @property
    def good(self) -> bool:
        return self.word == "Ready"


class PeerStatus(_Told, frozen=True):
    """One peer as it is now. `pods` are home's, counted by state."""

    peer: str
    node: str
    health: Health
    version: str = ""
    pods: dict[states.State, int] = {}
    hops: Hops | None = None


class Problem(_Told, frozen=True):
    """Something that went wrong, be it over or not."""

    time: datetime
    about: str
    reason: str
    message: str
    times: int = 1


class StatusReport(_Told, frozen=True):
    """`vnode status`."""

    peers: list[PeerStatus]
    errors: list[Problem]
    notes: list[str]


class PeerDetails(_Told, frozen=True):
    """One peer as a node of home."""

    peer: str
    node: str
    health: Health
    version: str = ""
    kubelet: str = ""
    created: datetime | None = None
    allocatable: dict[str, str] = {}
    region: str = ""
    zone: str = ""
    provider: str = ""
    hops: Hops | None = None


class PeersReport(_Told, frozen=True):
    """`vnode peers`."""

    peers: list[PeerDetails]
    notes: list[str]


class Place(_Told, frozen=True):
    """A mirror: where at the peer it is."""

    namespace: str
    name: str
    node: str = ""
    ip: str = ""


class PodRow(_Told, frozen=True):
    """A Pod on a virtual node; `remote` is None where it has no mirror, or its peer was not asked."""

    namespace: str
    name: str
    peer: str
    node: str
    status: str
    ready: int
    containers: int
    restarts: int
    created: datetime | None
    ip: str = ""
    remote: Place | None = None


class PodsReport(_Told, frozen=True):
    """`vnode pods`; `asked` says of which peers the mirrors were looked for."""

    pods: list[PodRow]
    asked: list[str]
    notes: list[str]


def peer_of(node: Node) -> str:
    """The peer a Node stands for."""
    return node.metadata.labels.get(names.PEER, "")


def health_of(node: Node | None, peer: Peer | None) -> Health:
    """A Peer's own word on what is wrong goes before its Node's; without a Node there is nothing but that."""
    told = peer.status.problem if peer is not None else ""
    if node is None:
        reason, colon, _ = told.partition(": ")
        return Health(reason if colon else "NoNode", problem=told or "vnode has made no Node for it (yet)")
    ready = node.condition("Ready")
    if ready is None:
        return Health("Unknown", problem=told or "the Node says nothing of itself yet")
    if names.REMOVING in node.metadata.annotations:
        return Health("Removing", ready.last_transition_time, told or "it is being taken out for good")
    if ready.status == "Unknown":
        lost = "no Lease from vnode: it is dead, or cut off from home"
        return Health("Unknown", ready.last_transition_time, lost)
    if ready.status == "False":
        return Health(ready.reason, ready.last_transition_time, told or ready.message)
    return Health("SchedulingDisabled" if node.spec.unschedulable else "Ready", ready.last_transition_time, told)


def status_report(
    nodes: Iterable[Node],
    peers: Iterable[Peer],
    pods: Mapping[str, Sequence[Pod]],
    events: Iterable[Event],
    hops: Mapping[str, Hops],
    notes: Sequence[str],
) -> StatusReport:
    """`pods` by node, `hops` by peer. Errors are the newest of what vnode said of these Nodes and their Pods."""
    paired = _paired(nodes, peers)
    rows = [
        PeerStatus(
            name,
            _node_name(node, peer),
            health_of(node, peer),
            _version(node, peer),
            _counted(pods.get(node.metadata.name, ()) if node else ()),
            hops.get(name),
        )
        for name, node, peer in paired
    ]
    hosts = {row.node for row in rows}
    errors = [_problem(event) for event in events if event.last is not None and event.source.host in hosts]
    errors += [
        Problem(peer.status.last_error.time, f"peer {name}", "LastError", peer.status.last_error.message)
        for name, _, peer in paired
        if peer is not None and peer.status.last_error is not None
    ]
    errors.sort(key=lambda error: error.time, reverse=True)
    return StatusReport(rows, errors[:ERRORS], list(notes))


def peers_report(
    nodes: Iterable[Node], peers: Iterable[Peer], hops: Mapping[str, Hops], notes: Sequence[str]
) -> PeersReport:
    """`hops` by peer."""
    rows = []
    for name, node, peer in _paired(nodes, peers):
        labels = node.metadata.labels if node else {}
        made = node.metadata if node else peer.metadata if peer else Meta()
        rows.append(
            PeerDetails(
                name,
                _node_name(node, peer),
                health_of(node, peer),
                _version(node, peer),
                _kubelet(node) if node else "",
                made.creation_timestamp,
                dict(node.status.allocatable) if node else {},
                labels.get(f"{_TOPOLOGY}/region", ""),
                labels.get(f"{_TOPOLOGY}/zone", ""),
                labels.get(names.PROVIDER, ""),
                hops.get(name),
            )
        )
    return PeersReport(rows, list(notes))


def pods_report(
    nodes: Iterable[Node],
    pods: Mapping[str, Sequence[Pod]],
    mirrors: Mapping[str, Iterable[Pod]],
    notes: Sequence[str],
) -> PodsReport:
    """`pods` by node; `mirrors` likewise, of those peers that were asked and have answered."""
    rows = []
    for node in sorted(nodes, key=peer_of):
        name = node.metadata.name
        places = {pod.metadata.annotations.get(names.ORIGIN_UID, ""): pod for pod in mirrors.get(name, ())}
        for pod in sorted(pods.get(name, ()), key=lambda pod: (pod.metadata.namespace, pod.metadata.name)):
            rows.append(_row(pod, peer_of(node), places.get(pod.metadata.uid)))
    return PodsReport(rows, sorted(mirrors), list(notes))


def place_of(mirror: Pod) -> Place:
    """Where a mirror is."""
    metadata = mirror.metadata
    return Place(metadata.namespace, metadata.name, mirror.spec.node_name, mirror.status.pod_ip)


def _row(pod: Pod, peer: str, mirror: Pod | None) -> PodRow:
    ready, containers = states.ready(pod)
    return PodRow(
        pod.metadata.namespace,
        pod.metadata.name,
        peer,
        pod.spec.node_name,
        states.word(pod),
        ready,
        containers,
        states.restarts(pod),
        pod.metadata.creation_timestamp,
        pod.status.pod_ip,
        place_of(mirror) if mirror is not None else None,
    )


def _paired(nodes: Iterable[Node], peers: Iterable[Peer]) -> list[tuple[str, Node | None, Peer | None]]:
    by_name = {peer.metadata.name: peer for peer in peers}
    pairs: list[tuple[str, Node | None, Peer | None]] = []
    for node in nodes:
        pairs.append((peer_of(node), node, by_name.pop(peer_of(node), None)))
    pairs += [(name, None, peer) for name, peer in by_name.items()]
    return sorted(pairs, key=lambda pair: pair[0])


def _node_name(node: Node | None, peer: Peer | None) -> str:
    return node.metadata.name if node else peer.status.node_name if peer else ""


def _version(node: Node | None, peer: Peer | None) -> str:
    told = peer.status.peer_version if peer else ""
    return told or (node.status.node_info.kubelet_version if node else "")


def _kubelet(node: Node) -> str:
    address = next((each.address for each in node.status.addresses if each.type == "InternalIP"), "")
    port = node.status.daemon_endpoints.kubelet_endpoint.port
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}" if address and port else address


def _counted(pods: Iterable[Pod]) -> dict[states.State, int]:
    counts = Counter(states.state(pod) for pod in pods)
    return {state: counts[state] for state in states.STATES}


def _problem(event: Event) -> Problem:
    about = event.involved_object
    place = f"{about.namespace}/{about.name}" if about.namespace else about.name
    assert event.last is not None
    return Problem(event.last, f"{about.kind.lower()} {place}", event.reason, event.message, event.times)
