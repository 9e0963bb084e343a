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

# On everything we make at a peer. The three labels together select what one virtual node owns there.
ORIGIN: Final = "vnode.dev/origin"  # label: the name of the home cluster
ORIGIN_CLUSTER_UID: Final = "vnode.dev/origin-cluster-uid"  # label: UID of home's kube-system
ORIGIN_NODE: Final = "vnode.dev/node"  # label: the virtual node it belongs to
ORIGIN_NAMESPACE: Final = "vnode.dev/origin-namespace"  # annotation: namespace at home
ORIGIN_UID: Final = "vnode.dev/origin-uid"  # annotation: UID of the home object
ORIGIN_SERVICE_ACCOUNT: Final = "vnode.dev/origin-service-account"  # annotation: serviceAccountName at home
ORIGIN_VERSION: Final = "vnode.dev/origin-version"  # annotation: "<uid>/<resourceVersion>" of the copied object
APPLIED: Final = "vnode.dev/applied"  # annotation: hash of the changeable part of the Pod as last sent

FIELD_MANAGER: Final = "vnode"
USER_AGENT: Final = "vnode"

# The condition type on home Pods which tells why a Pod has no (good) mirror at the peer.
REMOTE_CONDITION: Final = "vnode.dev/Remote"

# Reasons: on Pod conditions and Events.
UNSUPPORTED_FIELD: Final = "UnsupportedField"
NAMESPACE_NOT_OFFLOADED: Final = "NamespaceNotOffloaded"
REMOTE_NAMESPACE_TAKEN: Final = "RemoteNamespaceTaken"
REMOTE_NAME_TAKEN: Final = "RemoteNameTaken"
REMOTE_REFUSED: Final = "RemoteRefused"
REFERENCE_NOT_FOUND: Final = "ReferenceNotFound"
REMOTE_POD_LOST: Final = "RemotePodLost"

# Reasons: on the Node's Ready condition.
VNODE_READY: Final = "VnodeReady"
VNODE_STARTING: Final = "VnodeStarting"
VNODE_STOPPED: Final = "VnodeStopped"
PEER_UNREACHABLE: Final = "PeerUnreachable"

# Reasons: on Events about the Node.
PEER_REACHABLE: Final = "PeerReachable"
NODE_NAME_TAKEN: Final = "NodeNameTaken"
