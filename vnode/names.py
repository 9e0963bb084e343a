"""Every Kubernetes string vnode owns: labels, annotations, taints, field manager, reasons.

README's reference tables list each of them; `tests/docs` holds the two together.
"""

from typing import Final

DOMAIN: Final = "vnode.dev"

# On the virtual Node.
PEER: Final = "vnode.dev/peer"  # label and taint key; its value is the peer's name
CLUSTER_UID: Final = "vnode.dev/cluster-uid"  # annotation: UID of home's kube-system, says whose Node this is
LABELS_KEY: Final = "vnode.dev/labels"  # annotation: the label keys we put on the Node, so that old ones can go
TAINTS_KEY: Final = "vnode.dev/taints"  # annotation: likewise, the taints (key:effect)
RESOURCES_KEY: Final = "vnode.dev/resources"  # annotation: likewise, the resources in capacity and allocatable
REMOVING: Final = "vnode.dev/removing"  # annotation: the Node is being taken out for good, do not make it again
PROVIDER: Final = "vnode.dev/provider"  # label: who runs the peer, as configured

# On a Peer object.
PEER_FINALIZER: Final = "vnode.dev/drain"  # finalizer: the Peer stays until its Node is drained and removed
ABANDON_AFTER: Final = (
    "vnode.dev/abandon-after"  # annotation: so long (`0s`, `30m`, `2h`) after its deletion a Peer goes undrained
)
PEER_VERSION: Final = "v1alpha1"

# On everything we make at a peer. The three labels together select what one virtual node owns there.
ORIGIN: Final = "vnode.dev/origin"  # label: the name of the home cluster
ORIGIN_CLUSTER_UID: Final = "vnode.dev/origin-cluster-uid"  # label: UID of home's kube-system
ORIGIN_NODE: Final = "vnode.dev/node"  # label: the virtual node it belongs to
ORIGIN_NAMESPACE: Final = "vnode.dev/origin-namespace"  # annotation: namespace at home
CREATED: Final = "vnode.dev/created"  # annotation: on a namespace that vnode itself made; no other is ever deleted
ORIGIN_UID: Final = "vnode.dev/origin-uid"  # annotation: UID of the home object
ORIGIN_SERVICE_ACCOUNT: Final = "vnode.dev/origin-service-account"  # annotation: serviceAccountName at home
ORIGIN_VERSION: Final = "vnode.dev/origin-version"  # annotation: "<uid>/<resourceVersion>" of the copied object
APPLIED: Final = "vnode.dev/applied"  # annotation: hash of the changeable part of the Pod as last sent

FIELD_MANAGER: Final = "vnode"
USER_AGENT: Final = "vnode"

# The condition type on home Pods which tells why a Pod has no (good) mirror at the peer.
REMOTE_CONDITION: Final = "vnode.dev/Remote"

# Reasons: on Pod conditions and Events.
UNSUPPORTED_FIELD: Final = "UnsupportedField"  # pod: a field that cannot travel, named in the message; nothing runs
NAMESPACE_NOT_OFFLOADED: Final = (
    "NamespaceNotOffloaded"  # pod: `kube-*`, or the peer's `namespaces.selector` leaves its namespace out
)
REMOTE_NAMESPACE_TAKEN: Final = "RemoteNamespaceTaken"  # pod: the namespace exists at the peer and is not ours
REMOTE_NAME_TAKEN: Final = (
    "RemoteNameTaken"  # pod: a Pod, ConfigMap or Secret of that name exists at the peer and is not ours
)
REMOTE_REFUSED: Final = (
    "RemoteRefused"  # pod: the peer's apiserver said no (quota, admission, class, right); its words are the message
)
REFERENCE_NOT_FOUND: Final = "ReferenceNotFound"  # pod: a ConfigMap or Secret the Pod needs is not there at home
OVERRIDE_FAILED: Final = "OverrideFailed"  # pod: one of the peer's `overrides` does not fit the Pod; which, and where
REFERENCE_NOT_READABLE: Final = (
    "ReferenceNotReadable"  # pod: vnode may not read this kind in the Pod's namespace at home; `vnode rbac` gives it
)
REMOTE_POD_LOST: Final = (
    "RemotePodLost"  # pod: `status.reason` of a Pod whose mirror was deleted at the peer, not by its owner here
)

# Reasons: on the Node's Ready condition.
VNODE_READY: Final = "VnodeReady"  # node: the peer answers and vnode serves it
VNODE_STARTING: Final = "VnodeStarting"  # node: vnode has not filled its stores yet
VNODE_STOPPED: Final = "VnodeStopped"  # node: vnode was stopped; Pods at the peer go on
PEER_UNREACHABLE: Final = (
    "PeerUnreachable"  # node: the probe of the peer's apiserver fails; the failing check is in the message
)

# Reasons: on Events about the Node.
PEER_REACHABLE: Final = "PeerReachable"  # node: Event, the peer answers again
NODE_NAME_TAKEN: Final = "NodeNameTaken"  # node: Event, a Node of that name is not this vnode's

# Reasons: on a Peer object's conditions, beside those of the Node's Ready condition.
ACCEPTED: Final = "Accepted"  # peer: the Peer is right, and served
INVALID_SPEC: Final = "InvalidSpec"  # peer: this version of vnode cannot use the spec
PEER_CONFLICT: Final = "PeerConflict"  # peer: an older Peer has the node name, or the namespaces of the same cluster
KUBECONFIG_ABSENT: Final = "SecretNotFound"  # peer: no such Secret in vnode's namespace, or no such key in it
KUBECONFIG_INVALID: Final = (
    "KubeconfigInvalid"  # peer: the Secret's kubeconfig cannot be used, or is not self-contained
)
NOT_CONNECTED: Final = "NotConnected"  # peer: not known (yet)
CREDENTIAL_ACCEPTED: Final = "CredentialAccepted"  # peer: the peer's apiserver takes the credential
CREDENTIAL_REFUSED: Final = "CredentialRefused"  # peer: it answers 401
RIGHT_MISSING: Final = "RightMissing"  # peer: it answers 403 to what vnode cannot work without
IN_SERVICE: Final = "InService"  # peer: it is not being deleted
DRAINING: Final = "Draining"  # peer: it is being deleted; the message says what is still to go
PEER_ABANDONED: Final = "PeerAbandoned"  # peer: condition and Event: it went undrained; the message says what is left
