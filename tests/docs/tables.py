"""Each reference table of README as Markdown, from the one place in the code that knows."""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import typer

from tests.docs.chart import chart
from vnode import names, roles
from vnode import rights as granted
from vnode.cli import cli
from vnode.config import reference
from vnode.peers import crd
from vnode.pods.fields import SPEC, STATUS, VOLUMES
from vnode.schema import Row
from vnode.telemetry.metrics import Metrics

ROOT = Path(__file__).parents[2]
ADMIN = ("join", "leave", "peer kubeconfig", "rbac", "remove")
DEPLOY = ROOT / "deploy"
README = ROOT / "README.md"
_OVERRIDES = "peers[].overrides[]."
_AS_IN_KUBERNETES = ("peers[].node.taints[].", "peers[].namespaces.selector.")
_NAME = re.compile(
    r'^[A-Z_]+: Final = \(?\s*"([^"]+)"  # (label and taint key|label|annotation|finalizer|pod|node|peer)[:;] (.+)$',
    re.M,
)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def config() -> str:
    """The keys of the configuration file, but for those of overrides, which are many, and Kubernetes' own."""
    return _keys(row for row in reference() if not row.key.startswith((_OVERRIDES, *_AS_IN_KUBERNETES)))


def overrides() -> str:
    """The keys of a peer's overrides."""
    return _keys(
        row._replace(key=row.key.removeprefix(_OVERRIDES)) for row in reference() if row.key.startswith(_OVERRIDES)
    )


def _keys(found: Iterable[Row]) -> str:
    rows = [[f"`{row.key}`", row.type, f"`{row.default}`" if row.default else "", row.meaning] for row in found]
    return _table(["key", "type", "default", "meaning"], rows)


def _commands(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


def flags() -> str:
    """The commands of every day and their options: a row for each set of commands that have options in common."""
    return _flags(lambda name: name not in ADMIN)


def joining() -> str:
    """Those that an administrator runs now and then."""
    return _flags(ADMIN.__contains__)


def _flags(listed: Callable[[str], bool]) -> str:
    users: dict[str, list[str]] = {}
    for name, command in sorted(_commands(typer.main.get_command(cli))):
        if not listed(name):
            continue
        for option in command.params:
            flag = ", ".join(option.opts) if option.param_type_name == "option" else str(option.name).upper()
            meaning = (getattr(option, "help", None) or "").rstrip(".")
            users.setdefault(f"`{flag}` {meaning}", []).append(f"`{name}`")
    return _grouped("command", "options", ((", ".join(used_by), option) for option, used_by in users.items()))


def _grouped(key: str, entries: str, found: Iterable[tuple[str, str]]) -> str:
    """A row for each key, its entries beneath each other."""
    rows: dict[str, list[str]] = {}
    for name, entry in found:
        rows.setdefault(name, []).append(entry)
    return _table([key, entries], [[name, "<br>".join(listed)] for name, listed in rows.items()])


def labels() -> str:
    """Labels, annotations and taint keys: a row for each of these."""
    found = [entry for entry in _NAME.findall(inspect.getsource(names)) if entry[1] not in ("pod", "node", "peer")]
    return _grouped("kind", "name and meaning", ((kind, f"`{name}` {meaning}") for name, kind, meaning in found))


def reasons() -> str:
    """Reasons on conditions and Events."""
    found = _NAME.findall(inspect.getsource(names))
    return _table(["reason", "on", "meaning"], [[f"`{n}`", k, m] for n, k, m in found if k in ("pod", "node")])


def peer_reasons() -> str:
    """Reasons on the conditions of Peer objects."""
    found = _NAME.findall(inspect.getsource(names))
    return _table(["reason", "meaning"], [[f"`{n}`", m] for n, k, m in found if k == "peer"])


def metrics() -> str:
    """vnode's own series: a row for each type."""
    families = [family for family in Metrics().registry.collect() if family.name.startswith("vnode_")]

    def entry(name: str, kind: str, meaning: str) -> tuple[str, str]:
        return kind, f"`{name}{'_total' * (kind == 'counter')}` {meaning.rstrip('.')}"

    found = [entry(family.name, family.type, family.documentation) for family in families]
    return _grouped("type", "series and meaning", found)


def rights() -> str:
    """What vnode must be allowed to do, on each side."""
    places = {
        "home": granted.HOME,
        "home, each namespace that offloads": granted.OFFLOADING,
        "home, with Peer objects": granted.HOME_PEERS,
        "home, vnode's own namespace": granted.HOME_OWN,
        "peer, each namespace that takes Pods": granted.PEER_NAMESPACE,
        "peer, where it is a few namespaces": granted.PEER_MAPPED,
        "peer": granted.PEER_CLUSTER,
        "peer, not by default": granted.PEER_KUBELETS,
        "peer, the account itself": granted.PEER_SELF,
    }
    resources: dict[tuple[str, str, str], list[str]] = {}
    for side, listed in places.items():
        for right in listed:
            row = (side, ", ".join(right.verbs), right.without or "(needed)")
            resources.setdefault(row, []).append(f"`{right.resource}`")
    rows = [[side, ", ".join(names), verbs, without] for (side, verbs, without), names in resources.items()]
    return _table(["side", "resource", "verbs", "without it"], rows)


def fields() -> str:
    """The fate of each field of a Pod."""
    parts = (("spec", SPEC), ("spec.volumes", VOLUMES), ("status", STATUS))
    fates: dict[tuple[str, str, str], list[str]] = {}
    for part, table in parts:
        for name, entry in table.items():
            fates.setdefault((part, entry.fate, entry.note), []).append(f"`{name}`")
    rows = [[part, ", ".join(listed), fate, note] for (part, fate, note), listed in fates.items()]
    return _table(["of", "field", "fate", "how"], rows)


TABLES: dict[str, Callable[[], str]] = {
    table.__name__: table
    for table in (flags, joining, config, overrides, labels, reasons, peer_reasons, metrics, rights, fields)
}
PAGES: dict[Path, tuple[str, ...]] = {
    README: ("flags", "config", "labels", "reasons", "fields", "metrics"),
    DEPLOY / "README.md": ("joining", "peer_reasons", "rights", "overrides"),
}


def manifests() -> dict[Path, str]:
    """The manifests that are made from code."""
    made = {**roles.written(), "base/crd.yaml": crd.text()}
    return {DEPLOY / path: text for path, text in made.items()} | chart(DEPLOY, made)


def written(page: Path) -> str:
    """The text of `page` with every table between its markers made anew."""
    text = page.read_text()
    for name in PAGES[page]:
        begin, end = f"<!-- table: {name} -->\n", f"\n<!-- end: {name} -->"
        head, found, rest = text.partition(begin)
        if not found:
            raise ValueError(f"{page} has no table {name}")
        text = head + begin + TABLES[name]() + end + rest.partition(end)[2]
    return text
