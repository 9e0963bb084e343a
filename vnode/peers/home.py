"""What all sessions share of the home cluster."""

from collections.abc import Mapping
from dataclasses import dataclass

from vnode.kube.client import Client
from vnode.kubelet.authority import ClientAuthority
from vnode.node.manifest import Identity
from vnode.runtime.covering import CoveringInformer
from vnode.runtime.informer import Informer


@dataclass(frozen=True, slots=True)
class Home:
    """Made once by `app`. The informers hold metadata only and are run there."""

    client: Client
    identity: Identity
    address: str
    namespaces: Informer
    reflected: Mapping[str, CoveringInformer]
    authority: ClientAuthority
