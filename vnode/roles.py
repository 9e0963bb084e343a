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
GUESTS: Final = "vnode-guests"  # at a peer, which may be a home itself, with a vnode in NAMESPACE: not to be mixed up
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
        _account(namespace),
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


def peer_cluster(account: str = ACCOUNT) -> list[JsonDict]:
    """A home's account at a peer, beside those of other homes, for namespaces that it makes there."""
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": GUESTS, "labels": LABELS}},
        _account(GUESTS, account),
        *_cluster_wide("vnode-peer", (*PEER_NAMESPACE, *PEER_CLUSTER), GUESTS, account),
        *_renewal(GUESTS, account),
    ]


def peer_namespaces(namespaces: Sequence[str], account: str = ACCOUNT) -> list[JsonDict]:
    """A home's account at a peer, in the first of these namespaces, for them alone: nothing is cluster-wide."""
    first, rights = namespaces[0], (*PEER_NAMESPACE, *PEER_MAPPED)
    return [
        _account(first, account),
        *(item for name in namespaces for item in _within("vnode-peer", name, rights, first, account)),
        *_renewal(first, account),
    ]


def peer_kubelets(account: str = ACCOUNT) -> list[JsonDict]:
    """The right to ask a peer's kubelets for usage, where no metrics API tells."""
    return _cluster_wide("vnode-kubelets", PEER_KUBELETS, GUESTS, account)


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


def _account(namespace: str, name: str = ACCOUNT) -> JsonDict:
    """No Pod is to have its token by default: vnode's own asks for it."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": name, "namespace": namespace, "labels": LABELS},
        "automountServiceAccountToken": False,
    }


def _renewal(namespace: str, account: str) -> list[JsonDict]:
    own = [right._replace(names=(account,)) for right in PEER_SELF]
    name = _of(account, "vnode-renew")
    return [_role("Role", name, own, namespace), _binding(name, namespace, "Role", namespace, account)]


def _cluster_wide(name: str, rights: Iterable[Right], account_namespace: str, account: str = ACCOUNT) -> list[JsonDict]:
    return [_role("ClusterRole", name, rights), _binding(name, "", "ClusterRole", account_namespace, account)]


def _within(
    name: str, namespace: str, rights: Iterable[Right], account_namespace: str, account: str = ACCOUNT
) -> list[JsonDict]:
    role = _role("Role", name, rights, namespace)
    return [role, _binding(name, namespace, "Role", account_namespace, account)]


def _role(kind: str, name: str, rights: Iterable[Right], namespace: str = "") -> JsonDict:
    return {"apiVersion": f"{_RBAC}/v1", "kind": kind, "metadata": _meta(name, namespace), "rules": rules(rights)}


def _binding(role: str, namespace: str, kind: str, account_namespace: str, account: str = ACCOUNT) -> JsonDict:
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "RoleBinding" if namespace else "ClusterRoleBinding",
        "metadata": _meta(_of(account, role), namespace),
        "roleRef": {"apiGroup": _RBAC, "kind": kind, "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": account_namespace}],
    }


def _of(account: str, name: str) -> str:
    """What is one account's alone: several homes may share a peer."""
    return name if account == ACCOUNT else f"{name}-{account}"


def _meta(name: str, namespace: str) -> JsonDict:
    return {"name": name, **({"namespace": namespace} if namespace else {}), "labels": LABELS}
