"""Puts a report out: as JSON or YAML, as plain text with aligned columns, or with colours on a terminal.

Nothing is cut off or wrapped where a program reads; on a terminal long texts wrap within their column. What clusters
say is shown, never obeyed: no control character of theirs reaches a terminal. Called by `commands`.
"""

import sys
from collections.abc import Sequence
from typing import Final, Literal, Self

import msgspec
import yaml
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table as RichTable
from rich.text import Text

from vnode.observe.tables import Page, Table

Format = Literal["table", "wide", "json", "yaml"]
_STYLES: Final = {"": "", "good": "green", "bad": "red", "faint": "dim"}


def as_data(report: msgspec.Struct, form: Format) -> str:
    """A report as JSON or YAML, with a line's end."""
    if form == "json":
        return msgspec.json.format(msgspec.json.encode(report), indent=2).decode() + "\n"
    return yaml.safe_dump(msgspec.to_builtins(report), sort_keys=False, allow_unicode=True)


def as_text(page: Page) -> str:
    """A page for a pipe, a file or a mail."""
    parts = ["\n".join(map(_one_line, page.head))] if page.head else []
    parts += [_aligned(table) for table in page.tables]
    parts += ["\n".join(f"note: {_one_line(note)}" for note in page.notes)] if page.notes else []
    return "\n\n".join(parts) + "\n"


def as_colours(page: Page) -> Group:
    """A page for a terminal."""
    parts: list[Text | RichTable] = [Text(_one_line(line), style="bold") for line in page.head]
    for table in page.tables:
        parts += [Text()] if parts else []
        parts.append(_coloured(table) if table.rows else Text(table.absent))
    parts += [Text()] if page.notes else []
    return Group(*parts, *(Text(f"note: {_one_line(note)}", style="yellow") for note in page.notes))


def show(page: Page, console: Console) -> None:
    """Print a page, with colours if it goes to a terminal."""
    if console.is_terminal:
        console.print(as_colours(page))
    else:
        sys.stdout.write(as_text(page))


class Following:
    """Shows pages as they come, within a `with`: on a terminal one over the other, else each that tells news."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._told: object = None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, page: Page, news: object) -> None:
        """Show `page`. What it tells is in `news`: in the page itself ages change all the time."""
        if self._live:
            self._live.update(as_colours(page), refresh=True)
        elif news != self._told:
            sys.stdout.write(("" if self._told is None else "\n") + as_text(page))
            sys.stdout.flush()
        self._told = news


def _aligned(table: Table) -> str:
    if not table.rows:
        return table.absent
    lines: Sequence[Sequence[str]] = [table.titles, *([_one_line(cell.text) for cell in row] for row in table.rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "   ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _one_line(text: str) -> str:
    if text.isprintable():
        return text
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())


def _coloured(table: Table) -> RichTable:
    shown = RichTable(box=None, header_style="bold", pad_edge=False)
    for title in table.titles:
        shown.add_column(title, overflow="fold")
    for row in table.rows:
        shown.add_row(*(Text(_one_line(cell.text), style=_STYLES[cell.style]) for cell in row))
    return shown
