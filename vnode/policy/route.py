"""From one home to one virtual node's peer: how what we make there is named and marked, and told from others'. Pure.

Used by `pods` and `reflect`, which translate objects along it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from vnode import names
from vnode.kube.objects import Key, Object
from vnode.policy.overrides import Override


class Refused(Exception):
    """Something of the user's cannot travel; `reason` is one of `names`, the message says what and why."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Route:
    """`remote_namespace` gives the peer's name of a home namespace; it is stable and raises nothing.

    `node_selector` restricts mirrors to the peer's nodes that the virtual node stands for. `overrides` say what Pods
    get there otherwise than at home.
    """

    cluster: str
    cluster_uid: str
    node: str
    remote_namespace: Callable[[str], str]
    node_selector: Mapping[str, str] = field(default_factory=dict)
    overrides: Sequence[Override] = ()

    @property
    def labels(self) -> dict[str, str]:
        """What every object of ours at the peer carries."""
        return {names.ORIGIN: self.cluster, **self._mark}

    @property
    def _mark(self) -> dict[str, str]:
        # Not the cluster's name: it is configuration, may change, and two homes may have the same one.
        return {names.ORIGIN_CLUSTER_UID: self.cluster_uid, names.ORIGIN_NODE: self.node}

    @property
    def selector(self) -> str:
        """The label selector of our objects at the peer."""
        return ",".join(f"{key}={value}" for key, value in self._mark.items())

    def owns(self, remote: Object) -> bool:
        """True when this object at the peer is ours to touch."""
        return all(remote.meta.labels.get(key) == value for key, value in self._mark.items())


def local_key(remote: Object) -> Key:
    """The home object that an object of ours says it stands for."""
    return Key(remote.meta.annotations.get(names.ORIGIN_NAMESPACE, ""), remote.meta.name)


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """A ConfigMap or Secret that a Pod cannot start without, or (`optional`) would like to have."""

    kind: str
    name: str
    optional: bool = False
