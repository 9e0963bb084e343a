"""`vnode check`: reach both sides, ask each apiserver what we may do there, and show it as a table.

The tables below are the rights vnode uses, each with what is lost without it; README and RBAC manifests follow them.
"""

import asyncio
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import msgspec
from rich.console import Console
from rich.table import Table

from vnode.config import PeerSpec, Settings
from vnode.errors import ApiError, Unauthorized
from vnode.kube.client import SELF_ACCESS_REVIEWS, Client
from vnode.kube.credentials import Credentials, from_kubeconfig
from vnode.telemetry.metrics import Metrics

REACH_LIMIT_S: Final = 10.0


class Right(NamedTuple):
    """Verbs on one resource. `without`: what is lost when one is missing; "" = vnode does not work at all."""

    resource: str  # RESOURCE[/SUBRESOURCE][.GROUP]
    verbs: tuple[str, ...]
    purpose: str
    without: str = ""
    namespace: str = ""


HOME: Final[tuple[Right, ...]] = (
    Right("pods", ("get", "list", "watch", "delete"), "take Pods, release them"),
    Right("pods/status", ("patch",), "write status"),
    Right("nodes", ("get", "list", "watch", "create", "patch"), "register virtual nodes"),
    Right("nodes", ("delete",), "remove them", "vnode remove, --deregister-on-exit"),
    Right("nodes/status", ("patch",), "conditions, capacity"),
    Right("leases.coordination.k8s.io", ("get", "create", "update"), "heartbeat", namespace="kube-node-lease"),
    Right("leases.coordination.k8s.io", ("delete",), "remove a node", "vnode remove", namespace="kube-node-lease"),
    Right("namespaces", ("get", "list", "watch"), "know which may offload"),
    Right("configmaps", ("get", "list", "watch"), "copy what Pods refer to"),
    Right("secrets", ("get", "list", "watch"), "copy what Pods refer to"),
    Right("events", ("create", "patch"), "tell users", "reasons show on conditions only"),
    Right("tokenreviews.authentication.k8s.io", ("create",), "kubelet port: who asks", "logs with bearer tokens"),
    Right("subjectaccessreviews.authorization.k8s.io", ("create",), "kubelet port: may they", "kubectl logs"),
    Right(
        "certificatesigningrequests.certificates.k8s.io",
        ("create", "get", "list", "watch", "delete"),
        "serving certificate",
        "a self-signed certificate is used",
    ),
    Right("pods/eviction", ("create",), "drain a node", "vnode remove, --deregister-on-exit"),
)
PEER: Final[tuple[Right, ...]] = (
    Right("pods", ("get", "list", "watch", "create", "patch", "delete"), "mirror Pods"),
    Right("namespaces", ("get", "list", "create", "delete"), "namespaces for them"),
    Right("configmaps", ("get", "list", "watch", "create", "update", "delete"), "what Pods refer to"),
    Right("secrets", ("get", "list", "watch", "create", "update", "delete"), "what Pods refer to"),
    Right("events", ("list", "watch"), "what happens to mirrors", "kubectl describe shows no Events of the peer"),
    Right("pods/log", ("get",), "logs", "kubectl logs"),
    Right("pods/exec", ("create",), "exec", "kubectl exec, cp, attach, debug, port-forward"),
    Right("pods/attach", ("create",), "attach", "kubectl exec, cp, attach, debug, port-forward"),
    Right("pods/portforward", ("create",), "port-forward", "kubectl exec, cp, attach, debug, port-forward"),
    Right("pods/ephemeralcontainers", ("patch",), "kubectl debug", "kubectl debug"),
    Right("pods/resize", ("patch",), "in-place resize", "in-place resize"),
    Right("nodes", ("list", "watch"), "capacity", "capacity.limits alone say what the node has"),
    Right("pods.metrics.k8s.io", ("list",), "kubectl top, autoscaling", "the nodes' kubelets are asked (nodes/proxy)"),
    Right("nodes/proxy", ("get",), "usage and probe metrics", "kubectl top needs the peer's metrics API"),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One row of the table."""

    side: str
    what: str
    verdict: Literal["ok", "missing", "optional"]
    detail: str


class _Status(msgspec.Struct):
    allowed: bool = False


class _Review(msgspec.Struct):
    status: _Status = msgspec.field(default_factory=_Status)


async def report(settings: Settings, home: Credentials) -> int:
    """Print the findings; 0 when everything needed is there, else 1."""
    metrics = Metrics()
    sides = [("home", Client(home, "home", metrics), HOME)]
    sides += [(spec.name, _client(spec, metrics), PEER) for spec in settings.peers]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_side(name, client, rights), name=name) for name, client, rights in sides]
    findings = [finding for task in tasks for finding in task.result()]
    _show(findings)
    return 1 if any(finding.verdict == "missing" for finding in findings) else 0


def _client(spec: PeerSpec, metrics: Metrics) -> Client:
    return Client(from_kubeconfig(spec.kubeconfig, spec.context), spec.name, metrics)


async def _side(side: str, client: Client, rights: Iterable[Right]) -> list[Finding]:
    try:
        version = msgspec.json.decode(await client.get_path("/version", limit_s=REACH_LIMIT_S))
        # /version is open to all: only an answer to our own name shows that the credential is good.
        asked = [await _right(side, client, right) for right in rights]
    except Unauthorized as error:
        return [Finding(side, "credential", "missing", f"not accepted: {error}")]
    except ApiError as error:
        return [Finding(side, "reachable", "missing", str(error))]
    finally:
        await client.close()
    return [Finding(side, "reachable", "ok", str(version.get("gitVersion", "unknown version"))), *asked]


async def _right(side: str, client: Client, right: Right) -> Finding:
    missing = [verb for verb in right.verbs if not await _allowed(client, right, verb)]
    if not missing:
        return Finding(side, right.resource, "ok", right.purpose)
    detail = f"may not {', '.join(missing)} ({right.purpose})"
    if right.without:
        return Finding(side, right.resource, "optional", f"{detail}; without: {right.without}")
    return Finding(side, right.resource, "missing", detail)


async def _allowed(client: Client, right: Right, verb: str) -> bool:
    resource, _, group = right.resource.partition(".")
    resource, _, subresource = resource.partition("/")
    attributes = {"verb": verb, "group": group, "resource": resource, "subresource": subresource}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {**attributes, "namespace": right.namespace}},
    }
    return msgspec.json.decode(await client.create(SELF_ACCESS_REVIEWS, "", review), type=_Review).status.allowed


_MARKS: Final = {"ok": "[green]ok[/]", "missing": "[red]MISSING[/]", "optional": "[yellow]absent[/]"}


def _show(findings: Iterable[Finding]) -> None:
    console = Console(file=sys.stdout)
    if not console.is_terminal:
        for finding in findings:
            print(f"{finding.side}\t{finding.what}\t{finding.verdict}\t{finding.detail}")
        return
    table = Table(box=None, header_style="bold")
    for title in ("SIDE", "WHAT", "", "DETAIL"):
        table.add_column(title)
    for finding in findings:
        table.add_row(finding.side, finding.what, _MARKS[finding.verdict], finding.detail)
    console.print(table)
