"""vnode's accounts in the world: exactly the roles that `deploy/` ships, on both sides, and what was done with them."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from tests.world.api import Api
from vnode import roles
from vnode.devcluster.controlplane import ControlPlane
from vnode.devcluster.pki import write_kubeconfig
from vnode.rights import Right

DEPLOY = Path(__file__).parents[2] / "deploy"
AUDIT = Path(__file__).with_name("audit.yaml")
SHIPPED = {
    "home": ("base/rbac.yaml", "base/guard.yaml"),
    "peer": ("peer/cluster/rbac.yaml", "peer/kubelets/rbac.yaml"),
}


REFUSED = "refused"  # how a namespace begins in which a test means vnode to be refused
_installed: list[tuple[str, ControlPlane]] = []


class Use(NamedTuple):
    """One request of vnode's, as the audit log has it."""

    resource: str  # as in `Right`
    verb: str
    namespace: str
    refused: bool


def install(plane: ControlPlane, side: Literal["home", "peer"]) -> None:
    """Make vnode's account from the shipped manifests, and a kubeconfig with its token."""
    api = Api(plane)
    if side == "home":
        api.create({"kind": "Namespace", "metadata": {"name": roles.NAMESPACE}})
    files = [argument for path in SHIPPED[side] for argument in ("-f", DEPLOY / path)]
    plane.kubectl("apply", *files)
    place = roles.NAMESPACE if side == "home" else roles.GUESTS
    token = plane.kubectl("create", "token", roles.ACCOUNT, "-n", place, "--duration=24h").stdout.strip()
    write_kubeconfig(kubeconfig(plane), cluster=plane.name, url=plane.url, ca=plane.authority.cert, token=token)
    _installed.append((side, plane))


def kubeconfig(plane: ControlPlane) -> Path:
    """vnode's kubeconfig for this cluster."""
    return plane.directory / "vnode-account.conf"


def may_read_secrets(plane: ControlPlane, namespace: str) -> None:
    """Bind what `vnode rbac` binds in a namespace that offloads."""
    for binding in roles.offloading([namespace]):
        Api(plane).create(binding)


def uses(side: str) -> Iterator[Use]:
    """What vnode's account asked the apiservers of this side for so far, resources only."""
    for line in (
        line for here, plane in _installed if here == side for line in plane.audit_log.read_text().splitlines()
    ):
        event = json.loads(line)
        about = event.get("objectRef")
        if about:
            path = "/".join(filter(None, (about["resource"], about.get("subresource"))))
            resource = ".".join(filter(None, (path, about.get("apiGroup"))))
            refused = event["annotations"].get("authorization.k8s.io/decision") == "forbid"
            yield Use(resource, event["verb"], about.get("namespace", ""), refused)


def granted(rights: Iterable[Right]) -> set[tuple[str, str]]:
    """Each resource with each verb."""
    return {(right.resource, verb) for right in rights for verb in right.verbs}
