"""What reports are made of: read at home with the user's kubeconfig, at peers with whatever credential was given.

Home's Nodes and Pods must be told, or one error says why not. All else may fail and becomes a note: hops, Events, Peer
objects, and peers that do not answer. Called by `commands`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, TypeVar

from vnode import names
from vnode.config import PeerSpec
from vnode.errors import VnodeError
from vnode.kube.client import EVENTS, NODES, PEERS, PODS, Client
from vnode.kube.credentials import from_kubeconfig
from vnode.kube.objects import Key
from vnode.observe.hops import Hops, read_hops
from vnode.observe.objects import Event, Node, Page, Peer, Pod
from vnode.observe.reading import Plain, every, one, opened, text
from vnode.observe.reports import (
    PeersReport,
    PodsReport,
    StatusReport,
    peer_of,
    peers_report,
    pods_report,
    status_report,
)
from vnode.observe.trace import Trace, trace

_OF_VNODE: Final = f"type=Warning,reportingComponent={names.USER_AGENT}"
T = TypeVar("T")


async def status(home: Client, chosen: Sequence[str], admin: str = "") -> StatusReport:
    """Of the `chosen` peers, by their names or their Nodes'; of all when none is. Raises `VnodeError`.

    Hops are asked of vnode's admin port at `admin`, a URL, else of its Nodes' kubelet ports.
    """
    notes: list[str] = []
    nodes, objects = await _peers(home, chosen)
    pods = {node.metadata.name: await _pods_on(home, node.metadata.name) for node in nodes}
    events = await _wished("errors", every(home, EVENTS, Page[Event], fieldSelector=_OF_VNODE), notes)
    return status_report(nodes, objects, pods, events, await _hops(home, nodes, admin, notes), notes)


async def peers(home: Client, chosen: Sequence[str], admin: str = "") -> PeersReport:
    """As `status`."""
    notes: list[str] = []
    nodes, objects = await _peers(home, chosen)
    return peers_report(nodes, objects, await _hops(home, nodes, admin, notes), notes)


async def pods(home: Client, chosen: Sequence[str], namespace: str, given: Sequence[PeerSpec]) -> PodsReport:
    """Pods on the `chosen` peers' Nodes, of one namespace or ("") all; the mirrors at those peers that are `given`."""
    notes: list[str] = []
    nodes, _ = await _peers(home, chosen)
    here = {node.metadata.name: await _pods_on(home, node.metadata.name, namespace) for node in nodes}
    there = await _at_peers([spec for spec in given if spec.node_name in here], notes)
    return pods_report(nodes, here, {node: mirrors for node, (mirrors, _) in there.items()}, notes)


async def life(home: Client, key: Key, given: Sequence[PeerSpec]) -> Trace:
    """Of one Pod; of one that is gone, what Events remember. Raises `VnodeError` when nothing is known of it."""
    notes: list[str] = []
    pod = await one(home, PODS, key, Pod)
    about = f"involvedObject.kind=Pod,involvedObject.name={key.name}"
    events = await _wished("Events", every(home, EVENTS, Page[Event], key.namespace, fieldSelector=about), notes)
    if pod is None and not events:
        raise VnodeError(f"home: no Pod {key}, and no Event about one")
    node = pod.spec.node_name if pod is not None else ""
    specs = [spec for spec in given if node in ("", spec.node_name)]
    if not given:
        notes.append("the peer was not asked: say --config FILE or --peer NAME=KUBECONFIG")
    elif not specs:
        notes.append(f"the peer was not asked: {node} is the node of none that is given")
    there = await _at_peers(specs, notes, key.name, lambda mirror: _stands(mirror, pod, key))
    standing = [(mirror, said) for mirrors, said in there.values() for mirror in mirrors]
    mirror, said = standing[0] if standing else (None, [])
    return trace(key.namespace, key.name, pod, events, mirror, said, notes)


async def node_names(home: Client) -> list[str]:
    """The virtual Nodes, for completion."""
    return [node.metadata.name for node in await _nodes(home)]


async def peer_names(home: Client) -> list[str]:
    """The peers, for completion."""
    return [peer_of(node) for node in await _nodes(home)]


async def pod_names(home: Client, namespace: str) -> list[str]:
    """The Pods of a namespace that are on virtual Nodes, for completion."""
    virtual = set(await node_names(home))
    found = await every(home, PODS, Page[Pod], namespace)
    return [pod.metadata.name for pod in found if pod.spec.node_name in virtual]


async def _nodes(home: Client) -> list[Node]:
    return await every(home, NODES, Page[Node], labelSelector=names.PEER)


async def _peers(home: Client, chosen: Sequence[str]) -> tuple[list[Node], list[Peer]]:
    nodes = await _nodes(home)
    # Peers need not be objects, and who asks need not be allowed to see those.
    objects = await _wished("", every(home, PEERS, Page[Peer]), [])
    known = {peer.metadata.name: peer.status.node_name for peer in objects}
    known |= {peer_of(node): node.metadata.name for node in nodes}
    if missing := set(chosen) - known.keys() - set(known.values()):
        there = f"there are: {', '.join(sorted(known))}" if known else "there is none"
        raise VnodeError(f"home: no peer {', '.join(sorted(missing))}; {there}")
    wanted = {peer for peer, node in known.items() if not chosen or peer in chosen or node in chosen}
    return [each for each in nodes if peer_of(each) in wanted], [
        each for each in objects if each.metadata.name in wanted
    ]


async def _pods_on(home: Client, node: str, namespace: str = "") -> list[Pod]:
    return await every(home, PODS, Page[Pod], namespace, fieldSelector=f"spec.nodeName={node}")


async def _hops(home: Client, nodes: Iterable[Node], admin: str, notes: list[str]) -> dict[str, Hops]:
    told: dict[str, Hops] = {}
    try:
        if admin:
            async with opened(Plain(admin), "--admin") as vnode:
                return read_hops(await text(vnode, "/metrics"))
        for node in nodes:
            ready = node.condition("Ready")
            served = ready is not None and ready.status != "Unknown" and ready.reason != names.VNODE_STOPPED
            # Each Node's port has the metrics of its whole vnode, so that as a rule one is asked.
            if served and peer_of(node) not in told:
                told |= read_hops(await text(home, NODES.path(Key("", node.metadata.name), "proxy/metrics")))
    except VnodeError as error:
        notes.append(f"no hops: {error}")
    return told


async def _at_peers(
    specs: Iterable[PeerSpec], notes: list[str], name: str = "", stands: Callable[[Pod], bool] = lambda _: True
) -> dict[str, tuple[list[Pod], list[Event]]]:
    """Mirrors by node, at all these peers at once; with a `name` only those that `stands` takes, and Events about them.

    A peer that fails is left out, and noted.
    """
    found: dict[str, tuple[list[Pod], list[Event]]] = {}

    async def ask(spec: PeerSpec) -> None:
        async with opened(from_kubeconfig(spec.kubeconfig, spec.context), spec.name) as peer:
            asked = {"labelSelector": f"{names.ORIGIN_NODE}={spec.node_name}"}
            asked |= {"fieldSelector": f"metadata.name={name}"} if name else {}
            mirrors = [mirror for mirror in await every(peer, PODS, Page[Pod], **asked) if stands(mirror)]
            said: list[Event] = []
            for mirror in mirrors if name else ():
                about = f"involvedObject.uid={mirror.metadata.uid}"
                reading = every(peer, EVENTS, Page[Event], mirror.metadata.namespace, fieldSelector=about)
                said += await _wished("Events", reading, notes)
        found[spec.node_name] = mirrors, said

    async def ask_or_note(spec: PeerSpec) -> None:
        try:
            await ask(spec)
        except VnodeError as error:
            notes.append(str(error))

    async with asyncio.TaskGroup() as group:
        for spec in specs:
            group.create_task(ask_or_note(spec), name=f"ask-{spec.name}")
    return found


def _stands(mirror: Pod, pod: Pod | None, key: Key) -> bool:
    """Whether it is the mirror of this Pod; of one that is gone, of one of its name."""
    origin = mirror.metadata.annotations
    if pod is not None:
        return origin.get(names.ORIGIN_UID) == pod.metadata.uid
    return origin.get(names.ORIGIN_NAMESPACE) == key.namespace


async def _wished(what: str, reading: Awaitable[list[T]], notes: list[str]) -> list[T]:
    """What can be had; a failure is noted."""
    try:
        return await reading
    except VnodeError as error:
        notes.append(f"no {what}: {error}")
        return []
