"""RBAC manifests of the rights in `rights`: what `deploy/` ships and `join` makes for one peer. Pure.

`written()` gives the files of `deploy/`; `python -m tests.docs` writes them, and a test holds the two together.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import yaml

from vnode.kube.objects import JsonDict
from vnode.rights import (
    HOME,
    HOME_OWN,
    HOME_PEERS,
    LEASES,
    OFFLOADING,
    PEER_CLUSTER,
    PEER_KUBELETS,
    PEER_MAPPED,
    PEER_NAMESPACE,
    PEER_SELF,
    Right,
)

ACCOUNT: Final = "vnode"
NAMESPACE: Final = "vnode-system"
LABELS: Final = {"app.kubernetes.io/name": "vnode"}
_RBAC: Final = "rbac.authorization.k8s.io"


def rules(rights: Iterable[Right]) -> list[JsonDict]:
    """The RBAC rules that grant exactly `rights`, resources of equal verbs together."""
    merged: dict[tuple[str, tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for right in rights:
        resource, _, group = right.resource.partition(".")
        merged.setdefault((group, right.verbs, right.names), []).append(resource)
    return [
        {"apiGroups": [group], "resources": resources, "verbs": list(verbs)}
        | ({"resourceNames": list(names)} if names else {})
        for (group, verbs, names), resources in merged.items()
    ]


def home(namespace: str = NAMESPACE) -> list[JsonDict]:
    """vnode's account at home, in `namespace`, and what it may do there."""
    leases = [right for right in HOME if right.namespace == LEASES]
    return [
        account(namespace),
        home_role(),
        _binding("vnode-home", "", "ClusterRole", namespace),
        *_within("vnode-leases", LEASES, leases, namespace),
        *_within("vnode-peers", namespace, HOME_OWN, namespace),
        _role("ClusterRole", "vnode-offload", OFFLOADING),  # bound namespace by namespace: `offloading`
    ]


def home_role(nodes: Sequence[str] = ()) -> JsonDict:
    """What vnode may do in all of home; with `nodes` only for virtual Nodes of these names, where `vnode-guard` is."""
    rights = [
        right._replace(names=tuple(nodes)) if right.verbs == ("serve",) else right
        for right in (*HOME, *HOME_PEERS)
        if not right.namespace
    ]
    return _role("ClusterRole", "vnode-home", rights)


def offloading(namespaces: Iterable[str], account_namespace: str = NAMESPACE) -> list[JsonDict]:
    """Bindings that let vnode read the Secrets of these home namespaces."""
    return [_binding("vnode-offload", name, "ClusterRole", account_namespace) for name in namespaces]


def peer_cluster(namespace: str = NAMESPACE) -> list[JsonDict]:
    """vnode's account at a peer, in a namespace of its own, for namespaces that it makes there."""
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": LABELS}},
        account(namespace),
        *_cluster_wide("vnode-peer", (*PEER_NAMESPACE, *PEER_CLUSTER), namespace),
        *_within("vnode-renew", namespace, PEER_SELF, namespace),
    ]


def peer_namespaces(namespaces: Sequence[str]) -> list[JsonDict]:
    """vnode's account at a peer, in the first of these namespaces, for them alone: nothing is cluster-wide."""
    first = namespaces[0]
    return [
        account(first),
        *(item for name in namespaces for item in _within("vnode-peer", name, (*PEER_NAMESPACE, *PEER_MAPPED), first)),
        *_within("vnode-renew", first, PEER_SELF, first),
    ]


def peer_kubelets(namespace: str = NAMESPACE) -> list[JsonDict]:
    """The right to ask a peer's kubelets for usage, where no metrics API tells."""
    return _cluster_wide("vnode-kubelets", PEER_KUBELETS, namespace)


def account(namespace: str) -> JsonDict:
    """The ServiceAccount. No Pod is to have its token by default: vnode's own asks for it."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": ACCOUNT, "namespace": namespace, "labels": LABELS},
        "automountServiceAccountToken": False,
    }


def written() -> Mapping[str, str]:
    """The files below `deploy/` that are made here, by path."""
    return {
        "base/rbac.yaml": dump(home()),
        "peer/cluster/rbac.yaml": dump(peer_cluster()),
        "peer/namespace/rbac.yaml": dump(peer_namespaces(["offload"])),
        "peer/kubelets/rbac.yaml": dump(peer_kubelets()),
    }


def dump(items: Iterable[JsonDict]) -> str:
    """The objects as one YAML stream."""
    head = "# Made by `python -m tests.docs` from vnode/rights.py, which says what each right is for.\n"
    texts = (yaml.dump(item, Dumper=_Plain, sort_keys=False, default_flow_style=None, width=110) for item in items)
    return head + "---\n".join(texts)


class _Plain(yaml.SafeDumper):
    """No anchors: people read these files."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _cluster_wide(name: str, rights: Iterable[Right], account_namespace: str) -> list[JsonDict]:
    binding = _binding(name, "", "ClusterRole", account_namespace)
    return [_role("ClusterRole", name, rights), binding]


def _within(name: str, namespace: str, rights: Iterable[Right], account_namespace: str) -> list[JsonDict]:
    return [_role("Role", name, rights, namespace), _binding(name, namespace, "Role", account_namespace)]


def _role(kind: str, name: str, rights: Iterable[Right], namespace: str = "") -> JsonDict:
    return {"apiVersion": f"{_RBAC}/v1", "kind": kind, "metadata": _meta(name, namespace), "rules": rules(rights)}


def _binding(name: str, namespace: str, role: str, account_namespace: str) -> JsonDict:
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "RoleBinding" if namespace else "ClusterRoleBinding",
        "metadata": _meta(name, namespace),
        "roleRef": {"apiGroup": _RBAC, "kind": role, "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": account_namespace}],
    }


def _meta(name: str, namespace: str) -> JsonDict:
    return {"name": name, **({"namespace": namespace} if namespace else {}), "labels": LABELS}
