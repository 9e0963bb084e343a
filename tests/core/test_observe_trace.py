"""`vnode trace`: one timeline out of both clusters' objects and Events."""

from typing import Any

import msgspec

from tests.builders import raw_pod
from vnode import names
from vnode.observe.objects import Event, Pod
from vnode.observe.render import as_text
from vnode.observe.tables import trace_page
from vnode.observe.trace import Entry, trace
from vnode.reflect.events import name_at_home

Json = dict[str, Any]


def at(second: int) -> str:
    return f"2026-05-01T12:00:{second:02}Z"


def conditions(**since: int) -> list[Json]:
    return [{"type": kind, "status": "True", "lastTransitionTime": at(second)} for kind, second in since.items()]


def event(uid: str, reason: str, message: str, second: int, by: str = "kubelet", **more: Any) -> Event:
    raw = {
        "involvedObject": {"kind": "Pod", "uid": uid},
        "type": "Normal",
        "reason": reason,
        "message": message,
        "firstTimestamp": at(second),
        "lastTimestamp": at(second),
        "reportingComponent": by,
        **more,
    }
    return msgspec.convert(raw, Event, strict=False)


RAN: Json = {"name": "main", "ready": True, "restartCount": 0, "state": {"running": {"startedAt": at(4)}}}
SHARED = conditions(Ready=5, ContainersReady=5, Initialized=3)
STATUS: Json = {"phase": "Running", "containerStatuses": [RAN]}


def home(status: Json | None = None, **metadata: Any) -> Pod:
    written = {"manager": names.FIELD_MANAGER, "operation": "Update", "subresource": "status", "time": at(6)}
    owner = {"kind": "ReplicaSet", "name": "web-7d", "controller": True}
    more = {"creationTimestamp": at(1), "managedFields": [written], "ownerReferences": [owner], **metadata}
    status = {**STATUS, "conditions": SHARED + conditions(PodScheduled=2)} if status is None else status
    return msgspec.convert(raw_pod("web", uid="u1", status=status, **more), Pod, strict=False)


def mirror(created: int = 2, **metadata: Any) -> Pod:
    raw = raw_pod(
        "web",
        namespace="shop-home",
        uid="r1",
        spec={"nodeName": "n1"},
        status={**STATUS, "podIP": "10.7.0.3", "conditions": SHARED + conditions(PodScheduled=2)},
        creationTimestamp=at(created),
        **metadata,
    )
    return msgspec.convert(raw, Pod, strict=False)


def test_a_life_looks_like_this() -> None:
    here = [
        event("u1", "Scheduled", "assigned shop/web to edge", 2, "default-scheduler"),  # as the condition says
        event("u1", "Tainted", "by hand", 2, ""),
        event("u0", "Killing", "an earlier Pod of this name", 0),
    ]
    there = [event("r1", "Pulled", "image is there", 3), event("r1", "BackOff", "hm", 4, type="Warning", count=3)]
    assert as_text(trace_page(trace("shop", "web", home(), here, mirror(), there, ["a note"]))) == (
        "Pod shop/web: Running, on virtual node edge\n"
        "at the peer: shop-home/web, on n1\n"
        "hops: bound to created at the peer under 1 s, changed at the peer to told at home 1 s\n"
        "\n"
        "TIME (UTC)   AFTER   WHERE   WHAT                   DETAIL\n"
        "12:00:01     +0s     home    created                shop/web by ReplicaSet web-7d\n"
        "12:00:02     +1s     home    PodScheduled=True      on edge\n"
        "12:00:02     +1s     home    Tainted                by hand\n"
        "12:00:02     +1s     peer    created                shop-home/web\n"
        "12:00:02     +1s     peer    PodScheduled=True      on n1\n"
        "12:00:03     +2s     peer    Initialized=True\n"
        "12:00:03     +2s     peer    Pulled                 image is there [kubelet]\n"
        "12:00:04     +3s     peer    BackOff                hm (x3, last 12:00:04) [kubelet]\n"
        "12:00:04     +3s     peer    main started\n"
        "12:00:05     +4s     peer    ContainersReady=True\n"
        "12:00:05     +4s     peer    Ready=True\n"
        "12:00:06     +5s     home    status written         by vnode, for the last time so far: Running\n"
        "\n"
        "note: a note\n"
    )


def steps(entries: list[Entry]) -> list[tuple[str, str]]:
    return [(entry.side, entry.what) for entry in entries]


def test_without_the_peer_home_tells_what_it_knows() -> None:
    told = trace("shop", "web", home(), [], None, [], [])
    assert steps(told.timeline) == [
        ("home", "created"),
        ("home", "PodScheduled=True"),
        ("home", "Initialized=True"),
        ("home", "main started"),
        ("home", "ContainersReady=True"),
        ("home", "Ready=True"),
        ("home", "status written"),
    ]
    assert (told.remote, told.hop_down_s, told.hop_up_s) == (None, None, None)


def test_the_peers_events_that_vnode_told_at_home_are_told_once() -> None:
    pulled = event("r1", "Pulled", "image is there", 3, metadata={"uid": "e1"})
    again = event("u1", "Pulled", "image is there", 3, metadata={"name": name_at_home("e1", "web", "u1")})
    told = trace("shop", "web", home(), [again], mirror(), [pulled], [])
    assert [step for step in steps(told.timeline) if step[1] == "Pulled"] == [("peer", "Pulled")]
    alone = trace("shop", "web", home(), [again], None, [], [])
    assert ("home", "Pulled") in steps(alone.timeline)


def test_who_said_it_is_told_with_where() -> None:
    told = trace("shop", "web", home(), [event("u1", "Pulled", "it", 3, source={"host": "edge"})], None, [], [])
    assert [entry.detail for entry in told.timeline if entry.what == "Pulled"] == ["it [kubelet at edge]"]


def test_what_home_says_otherwise_than_the_peer_is_told_of_both() -> None:
    gated = [
        *conditions(PodScheduled=2, Initialized=3, ContainersReady=5),
        {**conditions(Ready=5)[0], "status": "False"},
    ]
    told = trace("shop", "web", home({**STATUS, "conditions": gated}), [], mirror(), [], [])
    assert {("home", "Ready=False"), ("peer", "Ready=True")} <= set(steps(told.timeline))


def test_a_pod_that_is_gone_is_what_events_remember() -> None:
    told = trace("shop", "web", None, [event("u0", "Killing", "Stopping", 9)], None, [], [])
    assert as_text(trace_page(told)).splitlines()[0] == "Pod shop/web: gone"
    assert steps(told.timeline) == [("home", "Killing")]


def test_a_deletion_stands_where_it_was_asked_for() -> None:
    leaving = home(deletionTimestamp=at(40), deletionGracePeriodSeconds=30)
    told = trace("shop", "web", leaving, [], mirror(deletionTimestamp=at(41), deletionGracePeriodSeconds=30), [], [])
    assert [(entry.side, entry.time.second) for entry in told.timeline if entry.what == "deletion asked for"] == [
        ("home", 10),
        ("peer", 11),
    ]


def test_each_run_of_a_container_that_is_known_is_told() -> None:
    last = {"exitCode": 3, "reason": "Error", "startedAt": at(4), "finishedAt": at(7)}
    again: Json = {
        **RAN,
        "restartCount": 1,
        "lastState": {"terminated": last},
        "state": {"running": {"startedAt": at(8)}},
    }
    told = trace("shop", "web", home({**STATUS, "containerStatuses": [again]}), [], None, [], [])
    runs = [(entry.what, entry.detail, entry.bad) for entry in told.timeline if entry.what.startswith("main")]
    assert runs == [
        ("main started", "", False),
        ("main ended with 3", "Error", True),
        ("main started", "start number 2", False),
    ]


def test_clocks_that_differ_are_noted_and_no_hop_is_made_of_them() -> None:
    told = trace("shop", "web", home(), [], mirror(created=0), [], [])
    assert told.hop_down_s is None
    assert told.notes == ["the peer's clock is behind home's: times of the two do not compare"]


def test_a_refusal_is_marked() -> None:
    refused = {
        "type": names.REMOTE_CONDITION,
        "status": "False",
        "reason": "RemoteRefused",
        "lastTransitionTime": at(3),
    }
    told = trace("shop", "web", home({"phase": "Pending", "conditions": [refused]}), [], None, [], [])
    assert told.status == "RemoteRefused"
    (entry,) = [entry for entry in told.timeline if entry.bad]
    assert (entry.what, entry.detail) == (f"{names.REMOTE_CONDITION}=False", "RemoteRefused")


def test_a_life_of_more_than_a_day_has_dates() -> None:
    old = home(creationTimestamp="2026-04-29T12:00:01Z")
    lines = as_text(trace_page(trace("shop", "web", old, [], None, [], []))).splitlines()
    assert lines[3].startswith("2026-04-29 12:00:01   +0s")
