"""What the demo lets one see: virtual nodes, and Pods with both of their homes.

`observe` reads the clusters; `View` shows it, as a live table on a terminal, else as a line for each change. Called by
`demo` only.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from vnode import names
from vnode.devcluster.controlplane import ControlPlane

_ORIGIN_SELECTOR = f"/api/v1/pods?labelSelector={names.ORIGIN}"


@dataclass(frozen=True)
class NodeView:
    """A virtual node at home."""

    name: str
    ready: bool
    reason: str


@dataclass(frozen=True)
class PodView:
    """A Pod at home, and `there`: namespace and node of its namesake at the peer, or empty."""

    name: str
    node: str
    state: str
    ready: bool
    there: str


@dataclass(frozen=True)
class Picture:
    """All of it, at one moment."""

    nodes: tuple[NodeView, ...]
    pods: tuple[PodView, ...]

    def complete(self, nodes: int, pods: int) -> bool:
        """Whether `nodes` virtual nodes are Ready, each with Ready Pods of its own, `pods` in all."""
        ready = {node.name for node in self.nodes if node.ready}
        running = [pod for pod in self.pods if pod.ready]
        return len(ready) == nodes and len(running) == len(self.pods) == pods and {pod.node for pod in running} == ready


def observe(home: ControlPlane, peers: Sequence[ControlPlane], namespace: str) -> Picture:
    """The virtual nodes at home, the Pods of `namespace`, and where at the peers they are. Raises DevClusterError."""
    nodes = home.get(f"/api/v1/nodes?labelSelector={names.PEER}")["items"]
    there = {uid: place for peer in peers for uid, place in _mirrors(peer.get(_ORIGIN_SELECTOR)["items"])}
    pods = home.get(f"/api/v1/namespaces/{namespace}/pods")["items"]
    return Picture(tuple(map(_node, nodes)), tuple(_pod(pod, there) for pod in pods))


def _mirrors(pods: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    for pod in pods:
        metadata, node = pod["metadata"], pod["spec"].get("nodeName", "no node yet")
        uid = metadata.get("annotations", {}).get(names.ORIGIN_UID, "")
        yield uid, f"{metadata['namespace']} on {node}"


def _condition(item: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    conditions: Sequence[Mapping[str, Any]] = item.get("status", {}).get("conditions", ())
    return next((condition for condition in conditions if condition["type"] == kind), {})


def _node(node: Mapping[str, Any]) -> NodeView:
    ready = _condition(node, "Ready")
    return NodeView(node["metadata"]["name"], ready.get("status") == "True", ready.get("reason", ""))


def _pod(pod: Mapping[str, Any], there: Mapping[str, str]) -> PodView:
    metadata, status = pod["metadata"], pod.get("status", {})
    ready = _condition(pod, "Ready").get("status") == "True" and "deletionTimestamp" not in metadata
    state = "Terminating" if "deletionTimestamp" in metadata else "Ready" if ready else status.get("phase", "")
    node = pod["spec"].get("nodeName", "")
    return PodView(metadata["name"], node, state, ready, there.get(metadata["uid"], ""))


class View:
    """Shows pictures as they come, within a `with`: on a terminal a live table until `settle`, else changes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._told: dict[str, str] = {}

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.settle()

    def settle(self) -> None:
        """Leave the table as it is; from now on only what changes is told, so that other text can stand between."""
        if self._live:
            self._live.stop()
        self._live = None

    def show(self, picture: Picture, elapsed_s: float) -> None:
        """Show `picture`, `elapsed_s` after the start."""
        news = list(self._news(picture))
        if self._live:
            self._live.update(_table(picture, elapsed_s), refresh=True)
            return
        for line in news:
            self._console.print(f"{elapsed_s:6.1f} s  {line}", markup=False, soft_wrap=True)

    def _news(self, picture: Picture) -> Iterator[str]:
        now = {
            f"node {node.name}": f"{'Ready' if node.ready else f'not Ready, {node.reason}'}" for node in picture.nodes
        }
        for pod in picture.pods:
            where = f" on {pod.node}" if pod.node else ""
            now[f"pod {pod.name}"] = f"{pod.state}{where}{f', at the peer in {pod.there}' if pod.there else ''}"
        for what in self._told.keys() - now.keys():
            yield f"{what}: gone"
        for what, state in now.items():
            if self._told.get(what) != state:
                yield f"{what}: {state}"
        self._told = now


def _table(picture: Picture, elapsed_s: float) -> Group:
    nodes = Text(f"{elapsed_s:.1f} s   virtual nodes: ")
    for node in picture.nodes:
        nodes.append(f"{node.name} ", style="green" if node.ready else "yellow")
        nodes.append("" if node.ready else f"({node.reason}) ", style="dim")
    table = Table("Pod at home", "virtual node", "state", "at the peer", title_justify="left")
    for pod in picture.pods:
        table.add_row(pod.name, pod.node, Text(pod.state, style="green" if pod.ready else "yellow"), pod.there)
    return Group(nodes, table)
