"""`vnode check`: reach both sides, ask each apiserver what we may do there, and show it as a table.

The rights asked for are those of `rights`, at a peer as far as the configuration reaches.
"""

import asyncio
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
from rich.console import Console
from rich.table import Table

from vnode.config import PeerSpec, Settings
from vnode.errors import ApiError, Unauthorized
from vnode.kube.access import allowed
from vnode.kube.client import Client
from vnode.kube.credentials import Credentials, from_kubeconfig
from vnode.rights import HOME, OFFLOADING, PEER_CLUSTER, PEER_KUBELETS, PEER_MAPPED, PEER_NAMESPACE, Right
from vnode.telemetry.metrics import Metrics

REACH_LIMIT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One row of the table."""

    side: str
    what: str
    verdict: Literal["ok", "missing", "optional"]
    detail: str


async def report(settings: Settings, home: Credentials) -> int:
    """Print the findings; 0 when everything needed is there, else 1."""
    metrics = Metrics()
    sides = [("home", Client(home, "home", metrics), HOME + OFFLOADING)]
    sides += [(spec.name, _client(spec, metrics), _rights_at(spec)) for spec in settings.peers]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_side(name, client, rights), name=name) for name, client, rights in sides]
    findings = [finding for task in tasks for finding in task.result()]
    _show(findings)
    return 1 if any(finding.verdict == "missing" for finding in findings) else 0


def _rights_at(peer: PeerSpec) -> tuple[Right, ...]:
    """What is needed at a peer: everywhere, or in the few namespaces that are all we have there."""
    if peer.namespaces.scope == "cluster":
        return PEER_NAMESPACE + PEER_CLUSTER + PEER_KUBELETS
    places = sorted(peer.namespaces.map.values())
    return tuple(right._replace(namespace=place) for place in places for right in PEER_NAMESPACE + PEER_MAPPED)


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
    missing = [verb for verb in right.verbs if not await allowed(client, verb, right.resource, right.namespace)]
    what = f"{right.resource} in {right.namespace}" if right.namespace else right.resource
    if not missing:
        return Finding(side, what, "ok", right.purpose)
    detail = f"may not {', '.join(missing)} ({right.purpose})"
    if right.without:
        return Finding(side, what, "optional", f"{detail}; without: {right.without}")
    return Finding(side, what, "missing", detail)


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
