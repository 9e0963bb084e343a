"""The virtual Node we want: what of a Node object is ours to say, and what we say there. Pure.

Its one Node stands for a whole cluster, so what differs between the peer's nodes is said by their majority (os, arch,
which are labels that Pods select by), by what all have (features), or called mixed. Called by `controller`, which lets
`patches` bring the Node there.
"""

import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from vnode import names
from vnode.config import PeerSpec
from vnode.kube.objects import JsonDict, Object, timestamp
from vnode.node.capacity import Capacity, PeerNode
from vnode.node.images import Image, common_images, images_json, read_images

# Has home's apiserver hand WebSockets through to us, and so to the peer's: its nodes' word on it means nothing here.
_WEB_SOCKETS: Final = "ExtendWebSocketsToKubelet"


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose Nodes these are: home's name, and the UID of its kube-system."""

    cluster: str
    cluster_uid: str


@dataclass(frozen=True, slots=True)
class PeerFacts:
    """What `nodeInfo` and the features say of the peer; the defaults stand for a peer that was never reached."""

    version: str = "v0.0.0"
    operating_system: str = "linux"
    architecture: str = "amd64"
    os_image: str = ""
    kernel_version: str = ""
    container_runtime: str = ""
    features: tuple[str, ...] = ()
    images: tuple[Image, ...] = ()


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition of the Node, without its times."""

    type: str
    status: bool
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """All that we say of the Node. What is absent from `status` we do not know now, and leave as it is."""

    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    taints: Sequence[Mapping[str, str]]
    conditions: Sequence[Condition]
    status: JsonDict


def peer_facts(version: str, nodes: Iterable[PeerNode]) -> PeerFacts:
    """The facts of a peer whose apiserver is of `version` and whose eligible nodes are `nodes`."""
    nodes = list(nodes)
    if not nodes:
        return PeerFacts(version)

    def all_say(key: str) -> str:
        values = {node.info.get(key, "") for node in nodes}
        return values.pop() if len(values) == 1 else "mixed"

    def most_say(key: str, default: str) -> str:
        counts = Counter(value for node in nodes if (value := node.info.get(key)))
        return min(counts, key=lambda value: (-counts[value], value), default=default)

    return PeerFacts(
        version,
        most_say("operatingSystem", "linux"),
        most_say("architecture", "amd64"),
        all_say("osImage"),
        all_say("kernelVersion"),
        all_say("containerRuntimeVersion"),
        tuple(sorted(frozenset.intersection(*(node.features for node in nodes)) - {_WEB_SOCKETS})),
        common_images(node.images for node in nodes),
    )


def shown_facts(node: Object) -> PeerFacts:
    """The facts a Node of ours shows: what was known of its peer when it was last reached."""
    status = node.status()
    info: Mapping[str, str] = status.get("nodeInfo") or {}
    unknown = PeerFacts()
    return PeerFacts(
        info.get("kubeletVersion") or unknown.version,
        info.get("operatingSystem") or unknown.operating_system,
        info.get("architecture") or unknown.architecture,
        info.get("osImage", ""),
        info.get("kernelVersion", ""),
        info.get("containerRuntimeVersion", ""),
        tuple(feature for feature in status.get("declaredFeatures") or () if feature != _WEB_SOCKETS),
        read_images(status.get("images")),
    )


def wanted_node(
    spec: PeerSpec,
    identity: Identity,
    *,
    address: str,
    port: int,
    facts: PeerFacts,
    capacity: Capacity | None,
    ready: Condition,
) -> Wanted:
    """The Node of peer `spec`. `port` 0 and `capacity` None stand for not known (yet).

    The only address is `address`: of the types the apiserver dials Hostname comes first, and whether a name resolves
    there we cannot know.
    """
    labels = {
        "type": "virtual-kubelet",
        "kubernetes.io/role": "agent",
        "kubernetes.io/hostname": spec.node_name,
        "kubernetes.io/os": facts.operating_system,
        "kubernetes.io/arch": facts.architecture,
        "beta.kubernetes.io/os": facts.operating_system,
        "beta.kubernetes.io/arch": facts.architecture,
        "node.kubernetes.io/exclude-from-external-load-balancers": "true",
        names.PEER: spec.name,
    }
    optional = {
        "topology.kubernetes.io/region": spec.node.region,
        "topology.kubernetes.io/zone": spec.node.zone,
        names.PROVIDER: spec.node.provider,
    }
    labels |= {key: value for key, value in optional.items() if value} | spec.node.labels
    taints = _taints(spec)
    status: JsonDict = {
        "addresses": [{"type": "InternalIP", "address": address}],
        "nodeInfo": _node_info(spec, identity, facts),
        "declaredFeatures": sorted([*facts.features, *([_WEB_SOCKETS] if spec.node.webSockets == "passed" else [])]),
    }
    if facts.images:
        status["images"] = images_json(facts.images)
    if port:
        status["daemonEndpoints"] = {"kubeletEndpoint": {"Port": port}}
    annotations = {
        names.CLUSTER_UID: identity.cluster_uid,
        names.LABELS_KEY: ",".join(sorted(labels)),
        names.TAINTS_KEY: ",".join(sorted(f"{taint['key']}:{taint['effect']}" for taint in taints)),
    }
    if capacity is not None:
        status |= {"capacity": dict(capacity.capacity), "allocatable": dict(capacity.allocatable)}
        annotations[names.RESOURCES_KEY] = ",".join(sorted(capacity.capacity))
    return Wanted(labels, annotations, taints, [*_pressures(), ready], status)


def ready_condition(peer: str, *, stopped: str, missing: Sequence[str], unreachable: str | None) -> Condition:
    """The Ready condition. The first of these holds that applies:

    `stopped` is why vnode gives the Node up, `unreachable` the probe's failure (None: it has not spoken yet), and
    `missing` what a start still waits for.
    """
    if stopped:
        return Condition("Ready", False, names.VNODE_STOPPED, stopped)
    if unreachable:
        return Condition("Ready", False, names.PEER_UNREACHABLE, f"peer {peer} does not answer: {unreachable}")
    waits = ["the peer's first answer"] * (unreachable is None) + list(missing)
    if waits:
        return Condition("Ready", False, names.VNODE_STARTING, f"vnode waits for {', '.join(waits)}")
    return Condition("Ready", True, names.VNODE_READY, f"vnode serves peer {peer}")


def shown_condition(node: Object, kind: str) -> Condition | None:
    """The condition of type `kind` as the Node shows it."""
    for condition in node.status().get("conditions") or ():
        if condition["type"] == kind and condition["status"] in ("True", "False"):
            shown = condition["status"] == "True"
            return Condition(kind, shown, condition.get("reason", ""), condition.get("message", ""))
    return None


def new_node(name: str, wanted: Wanted, now: datetime) -> JsonDict:
    """The manifest that creates the Node, whole at once: a DaemonSet must never see it without its taint."""
    moment = timestamp(now)
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": dict(wanted.labels), "annotations": dict(wanted.annotations)},
        "spec": {"taints": list(wanted.taints)},
        "status": wanted.status
        | {"conditions": [condition_json(condition, moment, moment) for condition in wanted.conditions]},
    }


def condition_json(condition: Condition, heartbeat: str, since: str) -> JsonDict:
    """`condition` as it stands in a status, with its two times."""
    return {
        "type": condition.type,
        "status": str(condition.status),
        "reason": condition.reason,
        "message": condition.message,
        "lastHeartbeatTime": heartbeat,
        "lastTransitionTime": since,
    }


def _taints(spec: PeerSpec) -> list[Mapping[str, str]]:
    if spec.node.taints is None:
        return [{"key": names.PEER, "value": spec.name, "effect": "NoSchedule"}]
    return [
        {"key": taint.key, "effect": taint.effect} | ({"value": taint.value} if taint.value else {})
        for taint in spec.node.taints
    ]


def _pressures() -> Iterable[Condition]:
    # The peer's nodes evict their own Pods, which we mirror; a cluster as a whole is under no such pressure.
    for resource, reason in (
        ("Memory", "HasSufficientMemory"),
        ("Disk", "HasNoDiskPressure"),
        ("PID", "HasSufficientPID"),
    ):
        yield Condition(f"{resource}Pressure", False, f"Kubelet{reason}", "the peer's own nodes look after this")


def _node_info(spec: PeerSpec, identity: Identity, facts: PeerFacts) -> JsonDict:
    def stable(what: str) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{what}.{spec.node_name}.{identity.cluster_uid}.{names.DOMAIN}"))

    return {
        "machineID": stable("machine").replace("-", ""),
        "systemUUID": stable("system"),
        "bootID": stable("boot"),
        "kernelVersion": facts.kernel_version,
        "osImage": facts.os_image,
        "containerRuntimeVersion": facts.container_runtime,
        "kubeletVersion": facts.version,
        "kubeProxyVersion": "",
        "operatingSystem": facts.operating_system,
        "architecture": facts.architecture,
    }
