"""What a peer tells of the CPU and memory our Pods use, from either of its two mouths, read into `Reading`s. Pure.

The metrics API (`metrics.k8s.io`) tells rates, a node's kubelet (`/metrics/resource`) counters. Input is a stranger's:
what is not of a mirror of ours is passed over, and no number in it can hurt. Called by `stats`, in a thread; `usage`
books what comes out.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from vnode.kube.objects import Key, Object, quantity
from vnode.kubelet.exposition import samples

LAST_S: Final = 2.0**33  # no time is later
MAX_WINDOW_S: Final = 3600.0
_CPU: Final = "container_cpu_usage_seconds_total"
_MEMORY: Final = "container_memory_working_set_bytes"
_START: Final = "container_start_time_seconds"
_DURATION: Final = re.compile(r"(\d+(?:\.\d*)?)(h|ms|m|s|us|µs|ns)")
_UNITS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


class Subject(NamedTuple):
    """A home Pod with its mirror. `running` gives its containers' starts as the mirror's status tells them."""

    key: Key
    uid: str
    started_s: float
    remote: Key
    node: str
    containers: frozenset[str]
    running: Mapping[str, float]


class Reading(NamedTuple):
    """One container, measured at `time_s`: CPU as a counter `total_s`, or (None) as `cores` over `window_s`."""

    time_s: float
    memory: int
    started_s: float = 0.0  # 0: not told
    total_s: float | None = None
    cores: float = 0.0
    window_s: float = 0.0


Readings = Mapping[Key, Mapping[str, Reading]]  # by the mirror's key and container


class _Named(msgspec.Struct):
    name: str = ""


class _Spec(msgspec.Struct, rename="camel"):
    node_name: str = ""
    containers: list[_Named] = []
    init_containers: list[_Named] | None = None
    ephemeral_containers: list[_Named] | None = None


class _Running(msgspec.Struct, rename="camel"):
    started_at: str | None = None


class _State(msgspec.Struct):
    running: _Running | None = None


class _ContainerStatus(msgspec.Struct):
    name: str = ""
    image: str = ""
    state: _State | None = None


class _Status(msgspec.Struct, rename="camel"):
    start_time: str | None = None
    container_statuses: list[_ContainerStatus] | None = None
    init_container_statuses: list[_ContainerStatus] | None = None
    ephemeral_container_statuses: list[_ContainerStatus] | None = None


_spec = msgspec.json.Decoder(_Spec)
_status = msgspec.json.Decoder(_Status)


def subject(local: Object, remote: Object) -> Subject:
    """What usage needs to know of a Pod. Containers that only the peer has (injected there) are not home's."""
    return Subject(
        local.key,
        local.uid,
        seconds(_status.decode(local.raw_status or b"{}").start_time),
        remote.key,
        _spec.decode(remote.raw_spec or b"{}").node_name,
        _containers(local),
        {each.name: seconds(running.started_at) for each, running in _running(remote)},
    )


def running_names(local: Object, remote: Object) -> list[tuple[str, str]]:
    """Name and image of those containers of the home Pod that run at the peer."""
    ours = _containers(local)
    return [(each.name, each.image) for each, _ in _running(remote) if each.name in ours]


def _containers(pod: Object) -> frozenset[str]:
    spec = _spec.decode(pod.raw_spec or b"{}")
    lists = (spec.containers, spec.init_containers, spec.ephemeral_containers)
    return frozenset(each.name for listed in lists for each in listed or ())


def _running(pod: Object) -> Iterator[tuple[_ContainerStatus, _Running]]:
    status = _status.decode(pod.raw_status or b"{}")
    for listed in (status.container_statuses, status.init_container_statuses, status.ephemeral_container_statuses):
        for each in listed or ():
            if each.state is not None and each.state.running is not None:
                yield each, each.state.running


def seconds(stamp: str | None) -> float:
    """RFC 3339 as seconds since the epoch; 0.0 for none, or what is none."""
    try:
        return datetime.fromisoformat(stamp).timestamp() if stamp else 0.0
    except ValueError:
        return 0.0


class _Container(msgspec.Struct):
    name: str
    usage: dict[str, str]


class _PodMetrics(msgspec.Struct):
    metadata: "_PodMeta"
    timestamp: str
    containers: list[_Container]
    window: str = ""


class _PodMeta(msgspec.Struct):
    name: str
    namespace: str


class _PodMetricsList(msgspec.Struct):
    items: list[_PodMetrics] | None = None


_pod_metrics = msgspec.json.Decoder(_PodMetricsList)


def api_readings(answer: bytes, subjects: Iterable[Subject]) -> dict[Key, dict[str, Reading]]:
    """What a list of `metrics.k8s.io/v1beta1` PodMetrics says of our mirrors. Raises ValueError when it is none."""
    ours, found = {each.remote: each for each in subjects}, dict[Key, dict[str, Reading]]()
    try:
        for item in _pod_metrics.decode(answer).items or ():
            owner = ours.get(Key(item.metadata.namespace, item.metadata.name))
            time_s = seconds(item.timestamp)
            if owner is None or not time_s:
                continue
            window_s = min(
                MAX_WINDOW_S, sum(float(n) * _UNITS[unit] for n, unit in _DURATION.findall(item.window[:64]))
            )
            found[owner.remote] = {
                each.name: Reading(
                    time_s,
                    int(_amount(each.usage.get("memory", "0"))),
                    owner.running.get(each.name, 0.0),
                    cores=_amount(each.usage.get("cpu", "0")),
                    window_s=window_s,
                )
                for each in item.containers
                if each.name in owner.containers
            }
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(f"no list of PodMetrics: {error}") from error
    return found


def _amount(text: str) -> float:
    amount = float(quantity(text[:64]))
    if amount < 0:
        raise ValueError(f"{text[:64]!r} is no amount of a resource")
    return amount


def kubelet_readings(text: str, subjects: Iterable[Subject], now_s: float) -> dict[Key, dict[str, Reading]]:
    """What a kubelet's `/metrics/resource` says of our mirrors; of a container without CPU or memory, nothing."""
    ours = {each.remote: each for each in subjects}
    parts: dict[tuple[Key, str], dict[str, tuple[float, float]]] = {}
    for sample in samples(text, (_CPU, _MEMORY, _START)):
        owner = ours.get(Key(sample.labels.get("namespace", ""), sample.labels.get("pod", "")))
        container = sample.labels.get("container", "")
        if owner is None or container not in owner.containers or not 0 <= sample.value < math.inf:
            continue
        time_s = now_s if sample.time_ms is None else sample.time_ms / 1000
        if not 0 < time_s < LAST_S or (sample.name == _START and sample.value >= LAST_S):
            continue
        parts.setdefault((owner.remote, container), {})[sample.name] = sample.value, time_s
    found: dict[Key, dict[str, Reading]] = {}
    for (key, container), values in parts.items():
        if _CPU in values and _MEMORY in values:
            total_s, time_s = values[_CPU]
            started_s = values[_START][0] if _START in values else ours[key].running.get(container, 0.0)
            found.setdefault(key, {})[container] = Reading(time_s, int(values[_MEMORY][0]), started_s, total_s)
    return found
