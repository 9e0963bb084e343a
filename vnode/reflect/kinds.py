"""The table of reflected kinds, and what each object becomes at the peer. Pure."""

from typing import Final, NamedTuple

from vnode import names
from vnode.kube.client import CONFIG_MAPS, SECRETS, Resource
from vnode.kube.objects import Json, JsonDict, Meta
from vnode.policy.route import Refused, Route


class Ref(NamedTuple):
    """One home object: `kind` is a key of `KINDS`."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


KINDS: Final[dict[str, Resource]] = {"ConfigMap": CONFIG_MAPS, "Secret": SECRETS}
_CONTENT: Final = ("data", "binaryData", "immutable", "type")


def version(meta: Meta) -> str:
    """What tells one state of a home object from every other."""
    return f"{meta.uid}/{meta.resource_version}"


def remote_object(kind: str, local: Json, route: Route) -> JsonDict:
    """The copy to hold at the peer. Raises `Refused` for what must not leave home."""
    if kind == "Secret" and local.get("type") == "kubernetes.io/service-account-token":
        message = f"Secret {local['metadata']['name']} holds a ServiceAccount's token, which never leaves home"
        raise Refused(names.UNSUPPORTED_FIELD, message)
    meta = local["metadata"]
    return {
        "apiVersion": "v1",
        "kind": kind,
        "metadata": {
            "namespace": route.remote_namespace(meta["namespace"]),
            "name": meta["name"],
            "labels": {**(meta.get("labels") or {}), **route.labels},
            "annotations": {
                names.ORIGIN_NAMESPACE: meta["namespace"],
                names.ORIGIN_UID: meta["uid"],
                names.ORIGIN_VERSION: f"{meta['uid']}/{meta['resourceVersion']}",
            },
        },
        **{name: local[name] for name in _CONTENT if name in local},
    }
