"""Objects of an administrator's making: where each is, how it reads in one line, and how it comes and goes.

Written by server-side apply, so that a second run changes nothing; deleted with the uid as precondition.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

from vnode.errors import NotFound
from vnode.kube.client import NAMESPACES, PEERS, SECRETS, Client, Resource
from vnode.kube.objects import Json, Key, parse_object
from vnode.kube.token import SERVICE_ACCOUNTS

_RBAC: Final = "/apis/rbac.authorization.k8s.io/v1"
_RESOURCES: Final = {
    "Namespace": NAMESPACES,
    "Secret": SECRETS,
    "ServiceAccount": SERVICE_ACCOUNTS,
    "Peer": PEERS,
    "Role": Resource(_RBAC, "roles"),
    "RoleBinding": Resource(_RBAC, "rolebindings"),
    "ClusterRole": Resource(_RBAC, "clusterroles"),
    "ClusterRoleBinding": Resource(_RBAC, "clusterrolebindings"),
}

Say = Callable[[str], None]


def key_of(item: Json) -> Key:
    """Where an object is to be."""
    return Key(item["metadata"].get("namespace", ""), item["metadata"]["name"])


def described(item: Json) -> str:
    """One line: kind, place, and of a role what it grants."""
    rules = (f"{', '.join(rule['verbs'])} {', '.join(rule['resources'])}" for rule in item.get("rules", ()))
    grants = "; ".join(rules)
    return f"{item['kind']} {key_of(item)}" + (f": {grants}" if grants else "")


async def apply_all(client: Client, items: Iterable[Json], say: Say) -> None:
    """Have these objects, in this order; each is told. Raises `ApiError` at the first that is refused."""
    for item in items:
        await client.apply(_RESOURCES[item["kind"]], key_of(item), item)
        say(f"applied {described(item)}")


async def delete_all(client: Client, items: Iterable[Json], say: Say) -> None:
    """Have these objects no more, the last first. Raises `ApiError`."""
    for item in reversed(list(items)):
        resource, key = _RESOURCES[item["kind"]], key_of(item)
        with suppress(NotFound):
            found = parse_object(await client.get(resource, key))
            await client.delete(resource, key, uid=found.uid)
            say(f"deleted {item['kind']} {key}")
