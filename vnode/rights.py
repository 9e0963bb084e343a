"""The rights vnode uses on each side, each with what is lost without it. Tables only; pure.

`check` asks the apiservers for them, `roles` makes the RBAC manifests of them, the runbook's table comes from them.
"""

from typing import Final, NamedTuple


class Right(NamedTuple):
    """Verbs on one resource. `without`: what is lost when one is missing; "" = vnode does not work at all.

    `namespace`: the one namespace it is for; "": all that the role is bound in. `names`: those objects only.
    """

    resource: str  # RESOURCE[/SUBRESOURCE][.GROUP]
    verbs: tuple[str, ...]
    purpose: str
    without: str = ""
    namespace: str = ""
    names: tuple[str, ...] = ()


LEASES: Final = "kube-node-lease"
_READ: Final = ("get", "list", "watch")
_STREAMS: Final = "kubectl exec, cp, attach, debug, port-forward"
_PASSED: Final = "node.webSockets: passed"
_DRAIN: Final = "vnode remove, --deregister-on-exit"

HOME: Final[tuple[Right, ...]] = (
    Right("pods", (*_READ, "delete"), "take Pods, release them"),
    Right("pods/status", ("patch",), "write status"),
    Right("nodes", (*_READ, "create", "patch"), "register virtual nodes"),
    Right("nodes", ("delete",), "remove them", _DRAIN),
    Right("nodes/status", ("patch",), "conditions, capacity"),
    Right("leases.coordination.k8s.io", ("get", "create", "update"), "heartbeat", namespace=LEASES),
    Right("leases.coordination.k8s.io", ("delete",), "remove a node", _DRAIN, namespace=LEASES),
    Right("namespaces", _READ, "know which may offload"),
    Right("configmaps", _READ, "copy what Pods refer to"),
    Right("events", ("create", "patch"), "tell users", "reasons show on conditions only"),
    Right("tokenreviews.authentication.k8s.io", ("create",), "kubelet port: who asks", "logs with bearer tokens"),
    Right("subjectaccessreviews.authorization.k8s.io", ("create",), "kubelet port: may they", "kubectl logs"),
    Right(
        "certificatesigningrequests.certificates.k8s.io",
        ("create", *_READ, "delete"),
        "serving certificate",
        "a self-signed certificate is used",
    ),
    Right("pods/eviction", ("create",), "drain a node", _DRAIN),
    Right("virtualnodes.vnode.dev", ("serve",), "be let through by vnode-guard", "vnode-guard refuses what we write"),
)
# In each namespace whose Pods bring Secrets along; bound there by `vnode rbac`.
OFFLOADING: Final[tuple[Right, ...]] = (
    Right("secrets", _READ, "copy what Pods refer to", "Pods that refer to Secrets stay Pending: vnode rbac"),
)
# With --peer-objects: the Peers, and the kubeconfigs beside them in vnode's own namespace.
HOME_PEERS: Final[tuple[Right, ...]] = (
    Right("peers.vnode.dev", ("list", "watch", "patch"), "peers as objects", "--peer-objects"),
    Right("peers/status.vnode.dev", ("patch",), "their status", "--peer-objects"),
)
HOME_OWN: Final[tuple[Right, ...]] = (
    Right("secrets", (*_READ, "patch"), "the Peers' kubeconfigs, whose tokens are renewed", "--peer-objects"),
)
# In each namespace at the peer that may hold our Pods: by a ClusterRole everywhere, or by Roles in a few.
PEER_NAMESPACE: Final[tuple[Right, ...]] = (
    Right("pods", (*_READ, "create", "patch", "delete"), "mirror Pods"),
    Right("configmaps", (*_READ, "create", "update", "delete"), "what Pods refer to"),
    Right("secrets", (*_READ, "create", "update", "delete"), "what Pods refer to"),
    Right("events", ("list", "watch"), "what happens to mirrors", "kubectl describe shows no Events of the peer"),
    Right("pods/log", ("get",), "logs", "kubectl logs"),
    Right("pods/exec", ("create",), "exec", _STREAMS),
    Right("pods/attach", ("create",), "attach", _STREAMS),
    Right("pods/portforward", ("create",), "port-forward", _STREAMS),
    Right("pods/exec", ("get",), "WebSockets passed on", _PASSED),
    Right("pods/attach", ("get",), "WebSockets passed on", _PASSED),
    Right("pods/portforward", ("get",), "WebSockets passed on", _PASSED),
    Right("pods/ephemeralcontainers", ("patch",), "kubectl debug", "kubectl debug"),
    Right("pods/resize", ("patch",), "in-place resize", "in-place resize"),
    Right("pods.metrics.k8s.io", ("list",), "kubectl top, autoscaling", "the nodes' kubelets are asked (nodes/proxy)"),
)
# In each of a few namespaces that are all we have there.
PEER_MAPPED: Final[tuple[Right, ...]] = (
    Right("resourcequotas", ("list", "watch"), "capacity", "capacity.limits alone say what the node has"),
)
# At a peer whose namespaces we make ourselves.
PEER_CLUSTER: Final[tuple[Right, ...]] = (
    Right("namespaces", ("get", "list", "create", "delete"), "namespaces for them"),
    Right("nodes", ("list", "watch"), "capacity", "capacity.limits alone say what the node has"),
)
# Not in the roles by default: who may GET through a node's proxy can run commands in every Pod there.
PEER_KUBELETS: Final[tuple[Right, ...]] = (
    Right("nodes/proxy", ("get",), "usage and probe metrics", "kubectl top needs the peer's metrics API"),
)
# On the account itself, in its namespace: its token renews itself.
PEER_SELF: Final[tuple[Right, ...]] = (Right("serviceaccounts/token", ("create",), "renew the token", "it runs out"),)
