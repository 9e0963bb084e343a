"""Reports as tables: which columns, in which words. Pure; `render` puts them on paper or on a terminal.

Called by `commands`. `wide` adds columns, and takes none away.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal

from vnode.kube.objects import quantity
from vnode.observe.hops import Hops, Spread
from vnode.observe.reports import (
    Health,
    PeerDetails,
    PeersReport,
    PeerStatus,
    PodRow,
    PodsReport,
    Problem,
    StatusReport,
)
from vnode.observe.trace import Entry, Trace

Style = Literal["", "good", "bad", "faint"]
_GOOD_WORDS: Final = frozenset({"Running", "Completed", "Succeeded"})


@dataclass(frozen=True, slots=True)
class Cell:
    """A text, and how it is to be taken."""

    text: str
    style: Style = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under titles. `absent` stands where there is no row."""

    titles: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    absent: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """What one command prints: tables with empty lines between, and what else is to be said."""

    tables: Sequence[Table]
    head: Sequence[str] = ()
    notes: Sequence[str] = field(default_factory=tuple)


def status_page(report: StatusReport, now: datetime, *, wide: bool) -> Page:
    """The peers, then the last errors, if there are any."""
    titles = ["PEER", "HEALTH", "FOR", "PODS", "STATES", "HOP DOWN P50/P99", "HOP UP P50/P99"]
    more = ["NODE", "VERSION", "ROUND TRIP P50/P99"] if wide else []
    rows = [_peer_row(row, now, wide=wide) for row in report.peers]
    tables = [_with_problems([*titles, *more], rows, [row.health for row in report.peers])]
    if report.errors:
        errors = [_error_row(error, now) for error in report.errors]
        tables.append(Table(["LAST ERRORS", "ABOUT", "REASON", "MESSAGE"], errors))
    return Page(tables, notes=report.notes)


def peers_page(report: PeersReport, now: datetime, *, wide: bool) -> Page:
    """The peers as nodes."""
    titles = ["PEER", "NODE", "HEALTH", "FOR", "VERSION", "CPU", "MEMORY", "PODS", "ROUND TRIP P50/P99", "AGE"]
    more = ["KUBELET PORT", "REGION", "ZONE", "PROVIDER"] if wide else []
    rows = [_details_row(row, now, wide=wide) for row in report.peers]
    return Page([_with_problems([*titles, *more], rows, [row.health for row in report.peers])], notes=report.notes)


def pods_page(report: PodsReport, now: datetime, *, wide: bool) -> Page:
    """The Pods; with their mirrors where a peer was asked."""
    titles = ["NAMESPACE", "NAME", "READY", "STATUS", "RESTARTS", "AGE", "PEER"]
    more = ["NODE", "IP"] if wide else []
    there = ["AT THE PEER", "PEER NODE", "PEER IP"] if report.asked else []
    rows = [_pod_row(row, now, wide=wide, asked=report.asked) for row in report.pods]
    return Page([Table([*titles, *more, *there], rows, "no Pods on virtual nodes")], notes=report.notes)


def trace_page(report: Trace) -> Page:
    """What is known of the Pod, then its timeline."""
    here = f"{report.namespace}/{report.name}"
    head = [f"Pod {here}: {report.status or 'gone'}" + (f", on virtual node {report.node}" if report.node else "")]
    if remote := report.remote:
        head.append(f"at the peer: {remote.namespace}/{remote.name}" + (f", on {remote.node}" if remote.node else ""))
    hops = (
        ("bound to created at the peer", report.hop_down_s),
        ("changed at the peer to told at home", report.hop_up_s),
    )
    if told := [f"{what} {_whole_seconds(taken)}" for what, taken in hops if taken is not None]:
        head.append(f"hops: {', '.join(told)}")
    days = {entry.time.date() for entry in report.timeline}
    stamp = "%H:%M:%S" if len(days) < 2 else "%Y-%m-%d %H:%M:%S"
    begin = report.timeline[0].time if report.timeline else None
    rows = [_entry_row(entry, stamp, begin or entry.time) for entry in report.timeline]
    return Page([Table(["TIME (UTC)", "AFTER", "WHERE", "WHAT", "DETAIL"], rows)], head, report.notes)


def age(since: datetime | None, now: datetime) -> str:
    """The time that has passed, in kubectl's manner: one or two units, the less exact the longer it is."""
    if since is None:
        return "-"
    seconds = max(0, int((now - since).total_seconds()))
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s"
    if hours < 3:
        return f"{minutes}m"
    return f"{hours}h" if days < 2 else f"{days}d"


def brief(seconds: float) -> str:
    """A short time with two digits that count: `4.2ms`, `87ms`, `1.3s`, `12s`."""
    value, unit = (seconds * 1000, "ms") if seconds < 0.9995 else (seconds, "s")
    return f"{value:.1f}{unit}" if value < 9.95 else f"{value:.0f}{unit}"


def _with_problems(titles: Sequence[str], rows: Sequence[Sequence[Cell]], healths: Sequence[Health]) -> Table:
    """Peers, with a last column for what is wrong where something is."""
    if any(health.problem for health in healths):
        titles = [*titles, "PROBLEM"]
        rows = [[*row, Cell(health.problem, "bad")] for row, health in zip(rows, healths, strict=True)]
    return Table(titles, rows, "no peers: no Node has the label vnode.dev/peer")


def _error_row(error: Problem, now: datetime) -> list[Cell]:
    again = f" (x{error.times})" if error.times > 1 else ""
    return _cells(age(error.time, now), error.about, error.reason, error.message + again)


def _peer_row(row: PeerStatus, now: datetime, *, wide: bool) -> list[Cell]:
    states = ", ".join(f"{count} {state}" for state, count in row.pods.items() if count)
    cells = [Cell(row.peer), _health(row.health), *_cells(age(row.health.since, now), str(sum(row.pods.values())))]
    cells.append(Cell(states or "-", "bad" if row.pods.get("failing") else ""))
    hops = row.hops or Hops()
    cells += _cells(_spread(hops.down), _spread(hops.up))
    if wide:
        cells += _cells(row.node or "-", row.version or "-", _spread(hops.probe))
    return cells


def _details_row(row: PeerDetails, now: datetime, *, wide: bool) -> list[Cell]:
    amounts = [_amount(resource, row.allocatable) for resource in ("cpu", "memory", "pods")]
    cells = [Cell(row.peer), Cell(row.node or "-"), _health(row.health), Cell(age(row.health.since, now))]
    cells += _cells(row.version or "-", *amounts, _spread((row.hops or Hops()).probe), age(row.created, now))
    if wide:
        cells += _cells(*(text or "-" for text in (row.kubelet, row.region, row.zone, row.provider)))
    return cells


def _amount(resource: str, of: Mapping[str, str]) -> str:
    if resource not in of:
        return "-"
    return f"{quantity(of[resource]) / 2**30:.1f}Gi" if resource == "memory" else of[resource]


def _pod_row(row: PodRow, now: datetime, *, wide: bool, asked: Iterable[str]) -> list[Cell]:
    good = row.status in _GOOD_WORDS and (row.ready == row.containers or row.status != "Running")
    cells = _cells(row.namespace, row.name, f"{row.ready}/{row.containers}")
    cells += [Cell(row.status, "good" if good else "bad"), *_cells(str(row.restarts), age(row.created, now), row.peer)]
    if wide:
        cells += _cells(row.node, row.ip or "-")
    if not asked:
        return cells
    if row.remote is None:
        return [*cells, *_cells("-" if row.node in asked else "not asked", "-", "-")]
    place = row.remote
    return [*cells, *_cells(f"{place.namespace}/{place.name}", place.node or "-", place.ip or "-")]


def _entry_row(entry: Entry, stamp: str, begin: datetime) -> list[Cell]:
    after_s = int((entry.time.replace(microsecond=0) - begin.replace(microsecond=0)).total_seconds())
    cells = [Cell(f"{entry.time:{stamp}}"), Cell(f"+{after_s}s", "faint"), Cell(entry.side)]
    return [*cells, Cell(entry.what, "bad" if entry.bad else ""), Cell(entry.detail, "faint")]


def _health(health: Health) -> Cell:
    return Cell(health.word, "good" if health.good else "bad")


def _spread(spread: Spread | None) -> str:
    return f"{brief(spread.p50)}/{brief(spread.p99)}" if spread else "-"


def _whole_seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds >= 1 else "under 1 s"  # the clusters' stamps have no more


def _cells(*texts: str) -> list[Cell]:
    return [Cell(text) for text in texts]
