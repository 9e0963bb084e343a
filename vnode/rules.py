"""What a configuration must satisfy beyond its types; each breach is one line: where it was said, key, expectation.

Says nothing about whether a peer answers: that is `vnode check`. Pure, but for a look at the files that are named.
Called by `cli` after `config.combine`, by `app` once the home cluster's name is known, and by `peers.objects`.
"""

import ipaddress
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from vnode import names
from vnode.config import NamespacesSpec, PeerSpec, Settings, default_cluster_name
from vnode.errors import ConfigError
from vnode.kube import syntax
from vnode.kube.objects import quantity
from vnode.kube.syntax import label_problems, refused
from vnode.policy.misfits import override_problems, selector_problems
from vnode.policy.namespaces import LabelSelector, NamespaceMap, shared, valid_template
from vnode.schema import yaml_problem

OWNED_LABELS: Final = {
    "kubernetes.io/hostname": "",
    "kubernetes.io/os": "",
    "kubernetes.io/arch": "",
    "kubernetes.io/role": "",
    "type": "",
    "topology.kubernetes.io/region": "; say node.region",
    "topology.kubernetes.io/zone": "; say node.zone",
}
RESOURCES: Final = ("cpu", "memory", "ephemeral-storage", "pods")


def validate(settings: Settings, *, files: bool = True) -> None:
    """Refuse what cannot work: bad names, labels, quantities, unusable kubeconfigs, peers in each other's way.

    Raises ConfigError with one line for each problem: where it was said, the key, what is expected.
    To be called again once a derived cluster name is known, as a template could spell that name out.
    Without `files` nothing is said of those that are named: for where they are not needed, and may not be.
    """
    cluster = settings.cluster or default_cluster_name("0" * 8)
    problems = [settings.place + problem for problem in _general_problems(settings, files)]
    earlier: list[Placed] = []
    for peer, place in zip(settings.peers, settings.peer_places, strict=True):
        problems.extend(place + problem for problem in peer_problems(peer, cluster))
        server: Hashable = peer.name
        try:
            server = _cluster_of(peer) if files else peer.name
        except ConfigError as e:
            problems.append(f"{place}{e}")
        placed = Placed(peer, server, place)
        problems.extend(place + problem for problem in mutual_problems(placed, earlier, cluster))
        earlier.append(placed)
    if problems:
        raise ConfigError("\n".join(problems))


def check_kubeconfig(flag: str, path: str, context: str) -> None:
    """Refuse the one kubeconfig file that `flag` names when it cannot be read or has no such context. ConfigError."""
    try:
        _cluster_of(PeerSpec(flag, path, context))
    except ConfigError as e:
        raise ConfigError(f"{flag}: {str(e).removeprefix('kubeconfig: ')}") from e


def _general_problems(settings: Settings, files: bool) -> Iterator[str]:
    if settings.cluster:
        yield from refused("cluster", syntax.dns_label, settings.cluster)
    if settings.kubelet.address:
        try:
            ipaddress.ip_address(settings.kubelet.address)
        except ValueError:
            yield f"kubelet.address: expected an IP address, got {settings.kubelet.address!r}"
    if settings.kubelet.client_ca and files:
        try:
            if "-----BEGIN CERTIFICATE-----" not in _text(settings.kubelet.client_ca):
                yield f"kubelet.clientCA: expected certificates in PEM, found none in {settings.kubelet.client_ca}"
        except ConfigError as e:
            yield f"kubelet.clientCA: {e}"
    if settings.objects_in:
        yield from refused("--namespace", syntax.dns_label, settings.objects_in)
    if settings.objects_in and settings.peers:
        yield "peers: expected none, here or by --peer, with --peer-objects"
    if not settings.peers and not settings.objects_in:
        yield "peers: expected at least one peer, here or by --peer NAME=KUBECONFIG"


def peer_problems(peer: PeerSpec, cluster: str) -> Iterator[str]:
    """What is wrong with one peer by itself, in the home cluster named `cluster`: lines `key: expectation`."""
    node = peer.node
    yield from refused("name", syntax.dns_label, peer.name)
    if node.name:
        yield from refused("node.name", syntax.dns_subdomain, node.name)
        yield from refused("node.name", syntax.label_value, node.name)  # it labels what we make at the peer
    yield from label_problems("node.labels", node.labels)
    for key in node.labels:
        if key in OWNED_LABELS or key.startswith(f"{names.DOMAIN}/"):
            yield f"node.labels[{key}]: expected no label that vnode itself sets{OWNED_LABELS.get(key, '')}"
    for key in ("region", "zone", "provider"):
        yield from refused(f"node.{key}", syntax.label_value, getattr(node, key))
    for index, taint in enumerate(node.taints or ()):
        yield from refused(f"node.taints[{index}].key", syntax.qualified_name, taint.key)
        yield from refused(f"node.taints[{index}].value", syntax.label_value, taint.value)
    for key, effect in _repeated((taint.key, taint.effect) for taint in node.taints or ()):
        yield f"node.taints: expected one taint of key {key} and effect {effect}"
    yield from label_problems("capacity.nodeSelector", peer.capacity.nodeSelector)
    for resource, amount in peer.capacity.limits.items():
        yield from _limit_problems(f"capacity.limits[{resource}]", resource, amount)
    yield from _namespace_problems(peer.namespaces, peer.namespace_map(cluster))
    for index, override in enumerate(peer.overrides):
        yield from override_problems(f"overrides[{index}]", override, peer.capacity.nodeSelector)


def _limit_problems(key: str, resource: str, amount: str) -> Iterator[str]:
    if "/" in resource:
        yield from refused(key, syntax.qualified_name, resource)
    elif resource not in RESOURCES and not resource.startswith("hugepages-"):
        yield f"{key}: expected a resource: {', '.join(RESOURCES)}, hugepages-SIZE or DOMAIN/NAME"
    try:
        if quantity(amount) < 0:
            yield f"{key}: expected a quantity of at least 0, got {amount!r}"
    except ValueError:
        yield f'{key}: expected a quantity such as "4", 500m or 16Gi, got {amount!r}'


def _namespace_problems(rules: NamespacesSpec, spaces: NamespaceMap) -> Iterator[str]:
    if rules.scope == "mapped" and not rules.map:
        yield "namespaces.map: expected at least one namespace with scope mapped"
    template_holds = valid_template(rules.template)
    if not template_holds:
        yield (
            "namespaces.template: expected a DNS-1123 label with {namespace} once and, where wanted, {cluster}, "
            f"got {rules.template!r}"
        )
    for namespace, target in rules.map.items():
        key = f"namespaces.map[{namespace}]"
        yield from refused(key, syntax.dns_label, namespace)
        yield from refused(key, syntax.dns_label, target)
        claimant = spaces.claimant(target) if template_holds else None
        if claimant is not None:
            yield f"{key}: expected a name that the template gives to no other namespace, {claimant} has {target!r}"
    for target in _repeated(rules.map.values()):
        yield f"namespaces.map: expected a remote namespace for each namespace, {target!r} is given twice"
    selector = rules.selector or LabelSelector()
    yield from selector_problems("namespaces.selector", selector)


class Placed(NamedTuple):
    """A peer, the apiserver its kubeconfig leads to, and where it was said: the start of each message about it."""

    peer: PeerSpec
    server: Hashable
    place: str


def mutual_problems(one: Placed, earlier: Iterable[Placed], cluster: str) -> Iterator[str]:
    """What `one` does wrong only together with a peer said `earlier`: lines `key: expectation`."""
    peer = one.peer
    for other, server, place in earlier:
        if peer.name == other.name:
            yield f"name: expected another name, {place}name is {peer.name} too"
        elif peer.node_name == other.node_name:
            key = "node.name" if peer.node.name else "name"
            yield f"{key}: expected another name, peer {other.name} has the node {other.node_name}"
        if one.server != server or peer.name == other.name:
            continue
        if not valid_template(peer.namespaces.template) or not valid_template(other.namespaces.template):
            continue
        name = shared(peer.namespace_map(cluster), other.namespace_map(cluster))
        if name is not None:
            whose = f"peer {other.name}, which is the same cluster,"
            yield f"namespaces: expected names that {whose} does not give too: {name}"


def _cluster_of(peer: PeerSpec) -> Hashable:
    """Which apiserver `peer`'s kubeconfig leads to. Raises ConfigError, `key: expectation`, when it leads nowhere."""
    if not peer.kubeconfig:
        raise ConfigError("kubeconfig: expected a file")
    try:
        text = _text(peer.kubeconfig)
    except ConfigError as e:
        raise ConfigError(f"kubeconfig: {e}") from e
    return Kubeconfig(text, peer.kubeconfig, peer.context).server


class Kubeconfig:
    """One context of a kubeconfig's `text`; `place` is where that is, for messages.

    Raises ConfigError, `key: expectation`, when the context leads to no apiserver, and nothing else for any text.
    """

    def __init__(self, text: str, place: str, context: str) -> None:
        try:
            self._read(text, place, context)
        except ConfigError:
            raise
        except Exception:  # noqa: BLE001 - PyYAML lets out a dozen types, and so do keys of types not foreseen
            message = f"kubeconfig: expected a kubeconfig, {place} has values of no type that can be one's"
            raise ConfigError(message) from None  # whose text may hold a secret

    def _read(self, text: str, place: str, context: str) -> None:
        try:
            raw = yaml.safe_load(text)
        except yaml.YAMLError as e:
            raise ConfigError(f"kubeconfig: expected YAML in {place}: {yaml_problem(e)}") from e
        if not isinstance(raw, dict) or not isinstance(raw.get("contexts"), list):
            raise ConfigError(f"kubeconfig: expected a kubeconfig, {place} has no list of contexts")
        contexts = _named(raw, "contexts", "context")
        name = context or raw.get("current-context")
        if name not in contexts:
            given = repr(name) if name else "none, and the file has no current-context"
            raise ConfigError(f"context: expected one of {', '.join(map(str, contexts))} in {place}, got {given}")
        users, user = _named(raw, "users", "user"), contexts[name].get("user")
        if user and user not in users:
            raise ConfigError(f"kubeconfig: expected the user {user!r} of context {name!r} in {place}")
        cluster = _named(raw, "clusters", "cluster").get(contexts[name].get("cluster"), {})
        if not isinstance(cluster.get("server"), str):
            raise ConfigError(f"kubeconfig: expected a cluster with a server for context {name!r} in {place}")
        proxy = cluster.get("proxy-url")
        if not isinstance(proxy, str | None):
            raise ConfigError(f"kubeconfig: expected a URL in proxy-url for context {name!r} in {place}")
        self.server: Hashable = (cluster["server"].rstrip("/"), proxy)
        # What would have us read a file of ours or start a program: not for a text that somebody else wrote.
        self.reaches_out = sorted(
            {"certificate-authority", "client-certificate", "client-key", "tokenFile", "exec", "auth-provider"}
            & {*cluster, *users.get(user, ())}
        )


def _named(raw: Mapping[str, Any], section: str, part: str) -> dict[Any, dict[str, Any]]:
    items = raw.get(section)
    found = [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    return {item.get("name"): item[part] for item in found if isinstance(item.get(part), dict)}


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"expected a readable text file, {path}: {getattr(e, 'strerror', None) or e}") from e


def _repeated(items: Iterable[Hashable]) -> list[Any]:
    return [item for item, count in Counter(items).items() if count > 1]
