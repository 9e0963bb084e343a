"""What our Pods use of CPU and memory, as counters of this node: measurements in, a kubelet's numbers out. Pure.

All sources are booked into one `Ledger`, so that what is shown under home's names only ever rises while a container
lives and begins anew when its start time changes, whichever source told it. `usage_formats` writes it. Called by
`stats`, in a thread.
"""

import threading
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from vnode.kube.objects import Key
from vnode.kubelet.measures import Reading, Readings, Subject

# metrics-server drops a container, its whole Pod with it, or a node whose CPU or memory is 0 (v0.9 resource/decode.go).
LEAST_CPU_S: Final = 1e-6
LEAST_MEMORY: Final = 1
BACKWARDS_S: Final = 60.0


class Point(NamedTuple):
    """What is shown of a container, a Pod or the node."""

    time_s: float
    started_s: float
    cpu_s: float
    cores: float
    memory: int


class PodUsage(NamedTuple):
    """One home Pod's; `whole` is its containers' sum."""

    key: Key
    uid: str
    containers: Mapping[str, Point]
    whole: Point


class Usage(NamedTuple):
    """One look at the peer. `failed`: it told nothing, and nothing is said of node or Pods."""

    node: Point
    pods: Sequence[PodUsage]
    failed: bool = False


class _Booked(NamedTuple):
    reading: Reading
    cpu_s: float
    cores: float


class Ledger:
    """The counters of one node, from look to look. Holds something only of Pods that are bound here now."""

    def __init__(self, started_s: float) -> None:
        self._lock = threading.Lock()  # who asked may have left while its thread still books
        self._started_s = started_s
        self._looked_s = started_s
        self._containers: dict[tuple[str, str], _Booked] = {}
        self._pods: dict[str, float] = {}
        self._node = Point(0.0, started_s, LEAST_CPU_S, 0.0, LEAST_MEMORY)

    def failed(self) -> Usage:
        """The peer told nothing this time."""
        return Usage(self._node, (), failed=True)

    def book(self, subjects: Sequence[Subject], readings: Readings, now_s: float) -> Usage:
        """Take in one look, and what to show now. Of a Pod the peer says nothing of, nothing is shown."""
        with self._lock:
            here = {each.uid for each in subjects}
            self._containers = {key: booked for key, booked in self._containers.items() if key[0] in here}
            self._pods = {uid: total_s for uid, total_s in self._pods.items() if uid in here}
            pods, burnt_s = list[PodUsage](), 0.0
            for each in subjects:
                if measured := readings.get(each.remote):
                    usage, spent_s = self._pod(each, measured)
                    pods.append(usage)
                    burnt_s += spent_s
            self._node = self._node_point(pods, burnt_s, now_s)
            self._looked_s = now_s
            return Usage(self._node, pods)

    def _pod(self, owner: Subject, measured: Mapping[str, Reading]) -> tuple[PodUsage, float]:
        points, node_s = {}, 0.0
        total_s = self._pods.get(owner.uid, 0.0)
        for container, reading in sorted(measured.items()):
            key = owner.uid, container
            held = self._containers.get(key)
            booked, spent_s = _book(held, reading)
            self._containers[key] = booked
            total_s += spent_s
            # What ran before we first looked at it is its own, but no news of the node.
            if held is not None or booked.reading.started_s >= self._looked_s:
                node_s += spent_s
            points[container] = Point(
                booked.reading.time_s,
                booked.reading.started_s,
                max(booked.cpu_s, LEAST_CPU_S),
                booked.cores,
                max(booked.reading.memory, LEAST_MEMORY),
            )
        self._pods[owner.uid] = total_s
        whole = Point(
            max(point.time_s for point in points.values()),
            owner.started_s,
            max(total_s, LEAST_CPU_S),
            sum(point.cores for point in points.values()),
            sum(point.memory for point in points.values()),
        )
        return PodUsage(owner.key, owner.uid, points, whole), node_s

    def _node_point(self, pods: Sequence[PodUsage], burnt_s: float, now_s: float) -> Point:
        before, time_s = self._node, max((pod.whole.time_s for pod in pods), default=now_s)
        if before.time_s - BACKWARDS_S < time_s < before.time_s:
            time_s = before.time_s  # the newest of them is gone; further back, clocks were set
        return Point(
            time_s,
            self._started_s,
            before.cpu_s + burnt_s,
            sum(pod.whole.cores for pod in pods),
            max(LEAST_MEMORY, sum(pod.whole.memory for pod in pods)),
        )


def _book(held: _Booked | None, reading: Reading) -> tuple[_Booked, float]:
    """A container's next entry, and the CPU seconds it adds."""
    if held is None or reading.started_s >= held.reading.time_s:  # first seen, or started since
        first_s = reading.cores * reading.window_s if reading.total_s is None else reading.total_s
        return _Booked(reading, first_s, reading.cores), first_s
    before = held.reading
    reading = reading._replace(started_s=before.started_s or reading.started_s)  # sources differ by a second
    elapsed_s = reading.time_s - before.time_s
    if elapsed_s <= 0:
        return held, 0.0
    if reading.total_s is None:
        spent_s = reading.cores * elapsed_s
    elif before.total_s is None:
        spent_s = held.cores * elapsed_s  # the source changed: a counter that began elsewhere
    elif reading.total_s < before.total_s:
        spent_s = reading.total_s  # it began anew, though nobody told the start
    else:
        spent_s = reading.total_s - before.total_s
    return _Booked(reading, held.cpu_s + spent_s, spent_s / elapsed_s), spent_s
