"""`vnode rbac`: the rights at home that depend on namespaces and Nodes, printed or applied."""

from collections.abc import Sequence

from vnode import roles
from vnode.join.account import Admin
from vnode.join.apply import Say, apply_all
from vnode.kube.client import NAMESPACES
from vnode.kube.objects import JsonDict
from vnode.kube.watch import Source


async def give(
    admin: Admin,
    namespaces: Sequence[str],
    selector: str,
    nodes: Sequence[str],
    account_namespace: str,
    say: Say | None,
) -> None:
    """Bind the Secrets of `namespaces` and of those that `selector` selects; serve no Nodes but `nodes`, where given.

    Printed as YAML, or applied where there is a `say` to be told. Raises `ApiError`.
    """
    async with admin.client("home") as client:
        chosen = list(namespaces)
        if selector:
            found = await Source(client, NAMESPACES, {"labelSelector": selector}, metadata_only=True).list()
            chosen += [item.meta.name for item in found.items]
        items: list[JsonDict] = roles.offloading(sorted(set(chosen)), account_namespace)
        if nodes:
            items.append(roles.home_role(nodes))
        if say is None:
            print(roles.dump(items), end="")
        else:
            await apply_all(client, items, say)
