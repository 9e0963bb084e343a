"""Logs: JSON lines, or text for people when stderr is a terminal. Context (peer, node) travels by contextvar.

Messages are constant; facts go into `extra`. Values from a peer are never part of a message. Control characters
cannot reach the terminal: fields are written as JSON, and what else a line has (tracebacks) is escaped.
"""

import json
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

_context: ContextVar[dict[str, Any]] = ContextVar("vnode_log_context", default={})  # noqa: B039 - never mutated
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tab and line feed, which tracebacks have

Format = Literal["auto", "json", "text"]


@contextmanager
def fields(**values: Any) -> Iterator[None]:
    """Add `values` to every record logged inside, tasks started there included."""
    token = _context.set({**_context.get(), **values})
    try:
        yield
    finally:
        _context.reset(token)


def setup(level: str = "info", style: Format = "auto", stream: TextIO = sys.stderr) -> None:
    """Send every logger's records to `stream`. Called once, by the command line."""
    as_text = style == "text" or (style == "auto" and stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Text() if as_text else _Json())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("aiohttp").setLevel(logging.WARNING)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    logging.getLogger("kopf").setLevel(logging.CRITICAL)  # what it ends of is told by who runs it


def _facts(record: logging.LogRecord) -> dict[str, Any]:
    own = {key: value for key, value in vars(record).items() if key not in _STANDARD}
    return {**_context.get(), **own}


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_facts(record),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S.%f")[:-3]
        facts = " ".join(f"{key}={json.dumps(value, default=str)}" for key, value in _facts(record).items())
        line = f"{moment} {record.levelname[0]} {record.getMessage()} {facts}".rstrip()
        text = f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line
        return _CONTROL.sub(lambda found: ascii(found.group())[1:-1], text)
