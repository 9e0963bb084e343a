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
from vnode.pods.fields import SPEC, STATUS, VOLUMES
from vnode.schema import Row
from vnode.telemetry.metrics import Metrics

ROOT = Path(__file__).parents[2]
ADMIN = ("join", "leave", "peer kubeconfig", "rbac")
DEPLOY = ROOT / "deploy"
README = ROOT / "README.md"
_OVERRIDES = "peers[].overrides[]."
_NAME = re.compile(
    r'^[A-Z_]+: Final = \(?\s*"([^"]+)"  # (label and taint key|label|annotation|pod|node)[:;] (.+)$', re.M
)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def config() -> str:
    """The keys of the configuration file, but for those of overrides, which are many."""
    return _keys(row for row in reference() if not row.key.startswith(_OVERRIDES))


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
    """The commands of every day and their options."""
    return _flags(lambda name: name not in ADMIN)


def joining() -> str:
    """Those that an administrator runs once a peer."""
    return _flags(ADMIN.__contains__)


def _flags(listed: Callable[[str], bool]) -> str:
    users: dict[tuple[str, str], list[str]] = {}
    for name, command in sorted(_commands(typer.main.get_command(cli))):
        if not listed(name):
            continue
        for option in command.params:
            flag = ", ".join(option.opts) if option.param_type_name == "option" else str(option.name).upper()
            users.setdefault((flag, (getattr(option, "help", None) or "").rstrip(".")), []).append(f"`{name}`")
    rows = [[", ".join(used_by), f"`{flag}`", meaning] for (flag, meaning), used_by in users.items()]
    return _table(["command", "option", "meaning"], rows)


def labels() -> str:
    """Labels, annotations and taint keys."""
    found = _NAME.findall(inspect.getsource(names))
    return _table(["name", "kind", "meaning"], [[f"`{n}`", k, m] for n, k, m in found if k not in ("pod", "node")])


def reasons() -> str:
    """Reasons on conditions and Events."""
    found = _NAME.findall(inspect.getsource(names))
    return _table(["reason", "on", "meaning"], [[f"`{n}`", k, m] for n, k, m in found if k in ("pod", "node")])


def metrics() -> str:
    """vnode's own series."""
    families = [family for family in Metrics().registry.collect() if family.name.startswith("vnode_")]
    rows = []
    for family in families:
        name = f"{family.name}_total" if family.type == "counter" else family.name
        rows.append([f"`{name}`", family.type, family.documentation.rstrip(".")])
    return _table(["series", "type", "meaning"], rows)


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
    table.__name__: table for table in (flags, joining, config, overrides, labels, reasons, metrics, rights, fields)
}
PAGES: dict[Path, tuple[str, ...]] = {
    README: ("flags", "config", "labels", "reasons", "fields", "metrics"),
    ROOT / "deploy" / "README.md": ("joining", "rights", "overrides"),
}


def manifests() -> dict[Path, str]:
    """The manifests that are made from code."""
    made = roles.written()
    return {DEPLOY / path: text for path, text in made.items()} | chart(DEPLOY, made["base/rbac.yaml"])


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
