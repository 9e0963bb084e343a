"""The configuration: its schema, and the way from a YAML file and `--peer` flags to `Settings`.

The Structs are the one definition: keys, types, defaults and meanings in the README come from them (`reference`), and
the `spec` of a Peer object too (`OBJECT_SPEC`). What a value must satisfy beyond its type is said in `rules`. Pure, but
for `load`. Called by `cli`, `app` and `peers`; its types are read everywhere above.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from vnode.errors import ConfigError
from vnode.policy.namespaces import LabelSelector, NamespaceMap
from vnode.policy.overrides import Override
from vnode.policy.route import Route
from vnode.schema import Quantity, Row, decode, rows


class Taint(Struct, frozen=True, forbid_unknown_fields=True):
    """A taint of the virtual node."""

    key: Annotated[str, Meta(description="taint key")]
    effect: Annotated[
        Literal["NoSchedule", "PreferNoSchedule", "NoExecute"],
        Meta(description="what it does to Pods without toleration"),
    ]
    value: Annotated[str, Meta(description="taint value")] = ""


class NodeSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """How the virtual node looks at home."""

    name: Annotated[str, Meta(description="the Node's name; empty: the peer's name")] = ""
    labels: Annotated[dict[str, str], Meta(description="further labels of the Node")] = {}
    taints: Annotated[
        list[Taint] | None,
        Meta(description="all taints of the Node; none: `vnode.dev/peer=NAME:NoSchedule`; `[]`: no taint"),
    ] = None
    region: Annotated[str, Meta(description="value of the Node's label `topology.kubernetes.io/region`")] = ""
    zone: Annotated[str, Meta(description="value of the Node's label `topology.kubernetes.io/zone`")] = ""
    provider: Annotated[str, Meta(description="who runs the peer, as a label value")] = ""
    webSockets: Annotated[  # noqa: N815
        Literal["translated", "passed"],
        Meta(
            description="of exec, attach and port-forward; translated: home's apiserver makes SPDY of them; "
            "passed: on to the peer, the Node declares `ExtendWebSocketsToKubelet`"
        ),
    ] = "translated"


class NamespacesSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """Which home namespaces may offload, and their names at the peer."""

    template: Annotated[
        str,
        Meta(description="name at the peer, of `{namespace}` and `{cluster}`; too long ones are shortened with a hash"),
    ] = "{namespace}-{cluster}"
    map: Annotated[
        dict[str, str], Meta(description="home namespace to its name at the peer; wins over the template")
    ] = {}
    scope: Annotated[
        Literal["cluster", "mapped"],
        Meta(description="mapped: only those of `map` offload, and nothing else at the peer is asked for or made"),
    ] = "cluster"
    selector: Annotated[
        LabelSelector | None, Meta(description="which home namespaces may offload; none: all but `kube-*`")
    ] = None


class CapacitySpec(Struct, frozen=True, forbid_unknown_fields=True):
    """How much of the peer the virtual node offers."""

    limits: Annotated[dict[str, Quantity], Meta(description="at most this much of each resource")] = {}
    nodeSelector: Annotated[dict[str, str], Meta(description="count only peer nodes with these labels")] = {}  # noqa: N815


class NetworkSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """What addresses at the peer mean at home."""

    podIPs: Annotated[  # noqa: N815
        Literal["hidden", "flat"],
        Meta(description="hidden: Pods show no IP at home; flat: they show the peer's, home can route to it"),
    ] = "hidden"


class PeerSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """One peer cluster; immutable, compared by value to see what a new configuration changed."""

    name: Annotated[str, Meta(description="the peer's name")]
    kubeconfig: Annotated[str, Meta(description="kubeconfig file of the peer, relative to this file")]
    context: Annotated[str, Meta(description="context in the kubeconfig; empty: its current-context")] = ""
    node: NodeSpec = NodeSpec()
    namespaces: NamespacesSpec = NamespacesSpec()
    capacity: CapacitySpec = CapacitySpec()
    network: NetworkSpec = NetworkSpec()
    overrides: Annotated[
        tuple[Override, ...],
        Meta(description="what Pods get there otherwise than at home, in order; keys in `deploy/README.md`"),
    ] = ()

    @property
    def node_name(self) -> str:
        """The name of the virtual Node."""
        return self.node.name or self.name

    def namespace_map(self, cluster: str) -> NamespaceMap:
        """The peer's namespace rules, for the home cluster named `cluster`."""
        rules = self.namespaces
        return NamespaceMap(rules.template, cluster, rules.map, rules.selector, mapped_only=rules.scope == "mapped")

    def route(self, cluster: str, cluster_uid: str) -> Route:
        """The way from that home cluster to this peer."""
        remote = self.namespace_map(cluster).remote
        return Route(cluster, cluster_uid, self.node_name, remote, self.capacity.nodeSelector, self.overrides)


class SecretRef(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a Peer object's kubeconfig is."""

    name: Annotated[str, Meta(description="a Secret in vnode's own namespace")]
    key: Annotated[str, Meta(description="its key that holds the kubeconfig; empty: `kubeconfig`")] = ""


def _object_spec() -> type[Struct]:
    """The `spec` of a Peer object: that of the file's peer, but for the name and where the kubeconfig is."""
    reference: Any = Annotated[SecretRef, Meta(description="where the kubeconfig of the peer is")]
    shared: list[tuple[str, Any, Any]] = []
    for field in msgspec.structs.fields(PeerSpec):
        if field.name not in ("name", "kubeconfig"):
            made = field.default_factory is not msgspec.NODEFAULT
            default = msgspec.field(default_factory=field.default_factory) if made else field.default
            shared.append((field.name, field.type, default))
    return msgspec.defstruct(
        "PeerObjectSpec", [("secretRef", reference), *shared], frozen=True, forbid_unknown_fields=True
    )


OBJECT_SPEC: Final = _object_spec()


class KubeletSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """Where and for whom the kubelet ports of the virtual nodes are."""

    address: Annotated[
        str, Meta(description="IP address at which the home apiserver reaches us; empty: the local one that reaches it")
    ] = ""
    client_ca: Annotated[
        str, Meta(description="PEM file, relative to this file: client certificates of these CAs are accepted")
    ] = msgspec.field(default="", name="clientCA")


class Document(Struct, frozen=True, forbid_unknown_fields=True):
    """What the file may say."""

    cluster: Annotated[
        str,
        Meta(description="our name in labels and namespaces at the peers; empty: from the UID of home's kube-system"),
    ] = ""
    kubelet: KubeletSpec = KubeletSpec()
    peers: Annotated[tuple[PeerSpec, ...], Meta(description="the peer clusters, one virtual node each")] = ()


class Settings(Document, frozen=True):
    """What file and flags said, paths made absolute, and where it was said: the start of each message about it."""

    objects_in: str = ""  # the peers are Peer objects at home, their Secrets in this namespace; empty: `peers` has them
    place: str = ""
    peer_places: tuple[str, ...] = ()  # of `peers`, in the same order


def default_cluster_name(uid: str) -> str:
    """The home cluster's name where none is configured, from the UID of its kube-system: stable, a DNS label."""
    return f"c-{uid.replace('-', '')[:8]}"


def load(path: Path) -> Settings:
    """The settings in the YAML file `path`, not yet held against `rules`. Raises ConfigError naming each wrong key."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"{path}: expected a readable file: {getattr(e, 'strerror', None) or e}") from e
    return parse(text, str(path), path.expanduser().absolute().parent)


def parse(text: str, file: str, folder: Path) -> Settings:
    """As `load`, from the file's text; `file` is its name in messages, paths in it are relative to `folder`."""
    document = decode(text, file, Document)
    peers = [msgspec.structs.replace(peer, kubeconfig=_absolute(peer.kubeconfig, folder)) for peer in document.peers]
    kubelet = msgspec.structs.replace(document.kubelet, client_ca=_absolute(document.kubelet.client_ca, folder))
    places = tuple(f"{file}: peers[{index}]." for index in range(len(peers)))
    return Settings(document.cluster, kubelet, tuple(peers), place=f"{file}: ", peer_places=places)


def from_flags(peers: Sequence[str]) -> tuple[PeerSpec, ...]:
    """The peers of repeated `--peer NAME=KUBECONFIG[#CONTEXT]`, relative to the working directory."""
    specs = []
    for flag in peers:
        name, _, location = flag.partition("=")
        kubeconfig, _, context = location.partition("#")
        if not name or not kubeconfig:
            raise ConfigError(f"--peer {flag}: expected NAME=KUBECONFIG[#CONTEXT]")
        specs.append(PeerSpec(name, _absolute(kubeconfig, Path.cwd()), context))
    return tuple(specs)


def combine(file: Settings | None, flags: Sequence[PeerSpec]) -> Settings:
    """The file's settings, where there is a file, then the flags' peers. Not yet held against `rules`."""
    base = file or Settings()
    places = base.peer_places + tuple(f"--peer {peer.name}: " for peer in flags)
    return msgspec.structs.replace(base, peers=(*base.peers, *flags), peer_places=places)


def reference() -> list[Row]:
    """Every key of the file with type, default and meaning, in the schema's order."""
    return rows(Document)


def _absolute(path: str, folder: Path) -> str:
    return os.path.normpath(folder / Path(path).expanduser()) if path else ""
