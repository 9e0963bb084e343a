"""Prometheus' text format as far as a kubelet's port needs it: read, keep what is ours, write anew. Pure.

A peer's kubelet speaks of everybody's Pods. A sample is kept only when its `namespace` and `pod` labels name a mirror
of ours, and then shows home's names. Read line by line on purpose: prometheus-client's parser takes a second for what
a full node's cAdvisor says. Called by `stats` and `usage`.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from prometheus_client.utils import floatToGoString

_SAMPLE: Final = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? +(\S+)(?: +(-?\d+))?")
_LABEL: Final = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
_COMMENT: Final = re.compile(r"# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*)(?: .*)?")
MAX_LINE: Final = 64 * 2**10


class Sample(NamedTuple):
    """One line. `labels` are as they stand there, escapes included; `time_ms` is None where it has no stamp."""

    name: str
    labels: dict[str, str]
    value: float
    time_ms: int | None


def samples(text: str, prefixes: tuple[str, ...]) -> Iterator[Sample]:
    """The samples whose names begin with one of `prefixes`. What cannot be read is left out."""
    for line in text.splitlines():
        if line.startswith(prefixes) and (sample := _sample(line)) is not None:
            yield sample


def _sample(line: str) -> Sample | None:
    match = _SAMPLE.fullmatch(line) if len(line) <= MAX_LINE else None
    if match is None:
        return None
    name, labels, value, time = match.groups()
    try:
        # 19 digits and more are no time of ours; Python would read thousands of them.
        return Sample(name, dict(_LABEL.findall(labels or "")), float(value), int(time[:19]) if time else None)
    except ValueError:
        return None


@dataclass(slots=True)
class Family:
    """A metric's comments and its samples, as lines."""

    comments: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)


class Renamed(NamedTuple):
    """What stands for a mirror's names at home."""

    namespace: str
    uid: str


Rename = Callable[[str, str], Renamed | None]


def relabelled(text: str, rename: Rename) -> dict[str, Family]:
    """The families of `text` that have samples of our Pods, with home's names in `namespace` and `pod_uid`."""
    found: dict[str, Family] = {}
    current, comments = "", list[str]()
    for line in text.splitlines():
        if line.startswith("#"):
            if (comment := _COMMENT.fullmatch(line)) is not None and len(line) <= MAX_LINE:
                if comment[2] != current:
                    current, comments = comment[2], []
                comments.append(line)
            continue
        if 'pod="' not in line or (sample := _sample(line)) is None:
            continue
        renamed = rename(sample.labels.get("namespace", ""), sample.labels.get("pod", ""))
        if renamed is None:
            continue
        known = bool(current) and sample.name.startswith(current)  # `x_bucket` and `x_sum` are of family `x`
        family = found.setdefault(current if known else sample.name, Family(comments if known else []))
        labels = sample.labels | {"namespace": renamed.namespace}
        if "pod_uid" in labels:
            labels["pod_uid"] = renamed.uid
        family.lines.append(line_of(sample.name, labels, sample.value, sample.time_ms))
    return found


def merged(parts: Iterable[Mapping[str, Family]]) -> dict[str, Family]:
    """The families of several answers as one answer's: each comment once."""
    whole: dict[str, Family] = {}
    for part in parts:
        for name, family in part.items():
            whole.setdefault(name, Family(family.comments)).lines.extend(family.lines)
    return whole


def line_of(name: str, labels: Mapping[str, str], value: float, time_ms: int | None = None) -> str:
    """One sample. Label values must be escaped already, or need no escape."""
    inner = ",".join(f'{key}="{text}"' for key, text in labels.items())
    number = floatToGoString(value).removesuffix(".0")  # type: ignore[no-untyped-call]
    stamp = "" if time_ms is None else f" {time_ms}"
    return f"{name}{{{inner}}} {number}{stamp}" if inner else f"{name} {number}{stamp}"


def written(families: Mapping[str, Family]) -> bytes:
    """The text of families, sorted by name as a Go registry does it."""
    lines = [line for _, family in sorted(families.items()) for line in (*family.comments, *family.lines)]
    return "".join(f"{line}\n" for line in lines).encode()
