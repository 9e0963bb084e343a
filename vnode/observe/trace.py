"""`vnode trace`: the life of one Pod over both clusters, as one timeline. Pure.

Everything has the stamp of the cluster that wrote it, in whole seconds; within one second entries stand in the order in
which things go. What the peer said is told as the peer's, and at home only where home says something else.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final, Literal

import msgspec

from vnode import names
from vnode.observe import states
from vnode.observe.objects import Condition, Container, Event, Pod, containers
from vnode.observe.reports import Place, place_of
from vnode.reflect.events import name_at_home

Side = Literal["home", "peer"]
# The order in which a kubelet's conditions become true; containers start after the first three.
_ORDER: Final = ("PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready")
_BEFORE_CONTAINERS: Final = frozenset(_ORDER[:3])


class Entry(msgspec.Struct, frozen=True, rename="camel"):
    """Something that happened. `what` in a few words, `detail` in those of whoever said it."""

    time: datetime
    side: Side
    what: str
    detail: str = ""
    bad: bool = False


class Trace(msgspec.Struct, frozen=True, rename="camel"):
    """One Pod's life. `status` is None when it is gone; hops are in seconds, None where they cannot be told."""

    namespace: str
    name: str
    uid: str
    node: str
    status: str | None
    remote: Place | None
    hop_down_s: float | None
    hop_up_s: float | None
    timeline: list[Entry]
    notes: list[str]


def trace(
    namespace: str,
    name: str,
    pod: Pod | None,
    events: Iterable[Event],
    mirror: Pod | None,
    mirror_events: Iterable[Event],
    notes: Sequence[str],
) -> Trace:
    """`events` are those about a Pod of this name at home, `mirror_events` at the peer; both may be of others, too."""
    uid, here = pod.metadata.uid if pod is not None else "", _about(events, pod)
    entries = [entry for event in here for entry in _event("home", event)] if pod is None else []
    there = _about(mirror_events, mirror) if mirror is not None else []
    if pod is not None:
        # vnode tells the peer's Events at home once more, under names it makes of both.
        twice = {name_at_home(event.metadata.uid, pod.metadata.name, uid) for event in there}
        here = [event for event in here if event.metadata.name not in twice]
        entries += _life("home", pod, _own(pod, mirror), here, ran=mirror is None)
    if mirror is not None:
        entries += _life("peer", mirror, mirror.status.conditions, there, ran=True)
    entries += _reported(pod)
    entries.sort(key=lambda entry: entry.time.replace(microsecond=0))  # stable: see above
    down, up = _hops(pod, mirror)
    more = [] if down is None or down >= 0 else ["the peer's clock is behind home's: times of the two do not compare"]
    return Trace(
        namespace,
        name,
        uid,
        pod.spec.node_name if pod is not None else "",
        states.word(pod) if pod is not None else None,
        place_of(mirror) if mirror is not None else None,
        down if down is None or down >= 0 else None,
        up,
        entries,
        [*notes, *more],
    )


def _about(events: Iterable[Event], pod: Pod | None) -> list[Event]:
    return [event for event in events if pod is None or event.involved_object.uid == pod.metadata.uid]


def _own(pod: Pod, mirror: Pod | None) -> list[Condition]:
    """Home's conditions that are not the peer's, told once more; scheduled it is on both sides."""
    shown = mirror.status.conditions if mirror is not None else []
    peers = {(each.type, each.status, each.last_transition_time) for each in shown if each.type != "PodScheduled"}
    return [each for each in pod.status.conditions if (each.type, each.status, each.last_transition_time) not in peers]


def _life(
    side: Side, pod: Pod, conditions: Iterable[Condition], events: Iterable[Event], *, ran: bool
) -> Iterator[Entry]:
    """One side's part; `ran`: with its containers. That it was scheduled is told once, by the condition."""
    scheduled = pod.condition("PodScheduled")
    if scheduled is not None and scheduled.status == "True":
        events = [event for event in events if (event.type, event.reason) != ("Normal", "Scheduled")]
    conditions = sorted(conditions, key=lambda each: _ORDER.index(each.type) if each.type in _ORDER else len(_ORDER))
    yield from _created(side, pod)
    for condition in conditions:
        if condition.type in _BEFORE_CONTAINERS:
            yield from _condition(side, condition, pod.spec.node_name)
    for event in events:
        yield from _event(side, event)
    for each in containers(pod) if ran else ():
        yield from _container(side, each)
    for condition in conditions:
        if condition.type not in _BEFORE_CONTAINERS:
            yield from _condition(side, condition, pod.spec.node_name)
    yield from _deleted(side, pod)


def _reported(pod: Pod | None) -> Iterator[Entry]:
    if pod is not None and (time := _written(pod)) is not None:
        yield Entry(time, "home", "status written", f"by vnode, for the last time so far: {states.word(pod)}")


def _created(side: Side, pod: Pod) -> Iterator[Entry]:
    metadata = pod.metadata
    if metadata.creation_timestamp is None:
        return
    owner = next((f"by {owner.kind} {owner.name}" for owner in metadata.owner_references if owner.controller), "")
    place = f"{metadata.namespace}/{metadata.name}"
    yield Entry(metadata.creation_timestamp, side, "created", f"{place} {owner}".strip())


def _deleted(side: Side, pod: Pod) -> Iterator[Entry]:
    if pod.metadata.deletion_timestamp is not None:
        grace_s = pod.metadata.deletion_grace_period_seconds  # the stamp says when that is over
        asked = pod.metadata.deletion_timestamp - timedelta(seconds=grace_s)
        yield Entry(asked, side, "deletion asked for", f"{grace_s} s of grace")


def _condition(side: Side, condition: Condition, node: str) -> Iterator[Entry]:
    if condition.last_transition_time is None:
        return
    detail = ": ".join(filter(None, (condition.reason, condition.message)))
    if condition.type == "PodScheduled" and condition.status == "True" and node:
        detail = f"on {node}"
    bad = condition.type == names.REMOTE_CONDITION and condition.status == "False"
    yield Entry(condition.last_transition_time, side, f"{condition.type}={condition.status}", detail, bad)


def _event(side: Side, event: Event) -> Iterator[Entry]:
    if event.first is None or event.last is None:
        return
    again = f" (x{event.times}, last {event.last:%H:%M:%S})" if event.times > 1 else ""
    by = f" [{event.by}]" if event.by else ""
    yield Entry(event.first, side, event.reason, f"{event.message}{again}{by}", event.type == "Warning")


def _container(side: Side, status: Container) -> Iterator[Entry]:
    """What is known of its runs: the last one that ended, and the one of now."""
    for state in (status.last_state, status.state):
        if ended := state.terminated:
            if ended.started_at is not None:
                yield Entry(ended.started_at, side, f"{status.name} started")
            if ended.finished_at is not None:
                detail = ": ".join(filter(None, (ended.reason, ended.message)))
                what = f"{status.name} ended with {ended.exit_code}"
                yield Entry(ended.finished_at, side, what, detail, ended.exit_code != 0)
        if state.running and state.running.started_at is not None:
            again = f"start number {status.restart_count + 1}" if status.restart_count else ""
            yield Entry(state.running.started_at, side, f"{status.name} started", again)


def _hops(pod: Pod | None, mirror: Pod | None) -> tuple[float | None, float | None]:
    """Bound at home -> created at the peer; the last change at the peer -> the status at home, if that is the later."""
    if pod is None or mirror is None:
        return None, None
    bound = pod.condition("PodScheduled")
    down = _seconds(bound.last_transition_time if bound else None, mirror.metadata.creation_timestamp)
    stamps = [each.last_transition_time for each in mirror.status.conditions]
    for each in containers(mirror):
        stamps.append(each.state.running.started_at if each.state.running else None)
        stamps.append(each.state.terminated.finished_at if each.state.terminated else None)
    up = _seconds(max((stamp for stamp in stamps if stamp is not None), default=None), _written(pod))
    return down, up if up is not None and up >= 0 else None


def _written(pod: Pod) -> datetime | None:
    writes = (each for each in pod.metadata.managed_fields if each.manager == names.FIELD_MANAGER)
    return max((each.time for each in writes if each.subresource == "status" and each.time is not None), default=None)


def _seconds(begin: datetime | None, end: datetime | None) -> float | None:
    return (end - begin).total_seconds() if begin is not None and end is not None else None
