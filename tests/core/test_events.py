"""reflect.events: what home is told of an Event at the peer, and what a peer cannot make it say."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import pod
from vnode.kube.objects import JsonDict, Object, parse_flat
from vnode.reflect.events import event_name, happening, home_event

LOCAL = pod("web", uid="u1")
PULL: JsonDict = {
    "metadata": {"name": "web.17", "namespace": "shop-home", "uid": "e1", "resourceVersion": "7"},
    "involvedObject": {
        "kind": "Pod",
        "namespace": "shop-home",
        "name": "web",
        "uid": "r1",
        "fieldPath": "spec.containers{main}",
        "resourceVersion": "5",
    },
    "type": "Warning",
    "reason": "Failed",
    "message": "no such image",
    "source": {"component": "kubelet", "host": "node-7"},
    "firstTimestamp": "2026-05-01T11:00:00Z",
    "lastTimestamp": "2026-05-01T12:00:00Z",
    "count": 3,
    "eventTime": None,
    "reportingComponent": "kubelet",
    "reportingInstance": "node-7",
}


def event(**fields: Any) -> Object:
    return parse_flat(msgspec.json.encode({**PULL, **fields}))


def told(event: Object) -> JsonDict:
    found = happening(event)
    assert found is not None
    return home_event(found, event_name(event, LOCAL), LOCAL, "edge")


def test_it_is_told_on_the_home_pod_by_the_peers_component_and_with_the_peers_name() -> None:
    assert told(event()) == {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"namespace": "shop", "name": event_name(event(), LOCAL)},
        "involvedObject": {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": "shop",
            "name": "web",
            "uid": "u1",
            "fieldPath": "spec.containers{main}",
        },
        "type": "Warning",
        "reason": "Failed",
        "message": "no such image",
        "source": {"component": "kubelet", "host": "edge"},
        "reportingComponent": "kubelet",
        "reportingInstance": "edge",
        "firstTimestamp": "2026-05-01T11:00:00Z",
        "lastTimestamp": "2026-05-01T12:00:00Z",
        "count": 3,
    }


def test_an_event_of_the_newer_api_has_its_times_and_count_too() -> None:
    newer = event(
        firstTimestamp=None,
        lastTimestamp=None,
        count=None,
        source={},
        reportingComponent="default-scheduler",
        eventTime="2026-05-01T11:30:00.123456Z",
        series={"count": 4, "lastObservedTime": "2026-05-01T11:45:00.654321Z"},
    )
    seen = told(newer)
    assert seen["firstTimestamp"] == "2026-05-01T11:30:00Z"
    assert seen["lastTimestamp"] == "2026-05-01T11:45:00Z"
    assert seen["count"] == 4
    assert seen["source"]["component"] == "default-scheduler"


def test_names_are_the_same_in_every_run_and_differ_by_event_and_pod() -> None:
    other = {**PULL["metadata"], "uid": "e2"}
    assert event_name(event(), LOCAL) == event_name(event(count=9), LOCAL)
    assert event_name(event(), LOCAL) != event_name(event(metadata=other), LOCAL)
    assert event_name(event(), LOCAL) != event_name(event(), pod("web", uid="u2"))
    assert len(event_name(event(), pod("w" * 253))) <= 253


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "Normal", "reason": "Scheduled"},
        {"involvedObject": {**PULL["involvedObject"], "kind": "Node"}},
        {"involvedObject": {"kind": "Pod", "namespace": "shop-home", "name": "web"}},
        {"lastTimestamp": None},
        {"lastTimestamp": "yesterday"},
        {"count": "many"},
        {"message": {"a": 1}},
    ],
    ids=[
        "placed",
        "not a Pod",
        "no uid",
        "no time",
        "no such time",
        "count of a wrong type",
        "message of a wrong type",
    ],
)
def test_what_home_need_not_or_cannot_be_told(fields: JsonDict) -> None:
    assert happening(event(**fields)) is None


def test_what_a_peer_sends_is_cut_to_what_the_apiserver_takes() -> None:
    long = told(event(message="m" * 5000, reason="r" * 500, type="Fatal", source={"component": "c" * 500}))
    assert (len(long["message"]), len(long["reason"]), len(long["source"]["component"])) == (1024, 128, 128)
    assert long["type"] == "Normal"


_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([name for name in PULL if name != "metadata"]), _JSON))
def test_nothing_a_peer_writes_makes_it_fail_or_speak_of_another_object(fields: JsonDict) -> None:
    found = happening(event(**fields))
    if found is not None:
        written = home_event(found, event_name(event(), LOCAL), LOCAL, "edge")
        involved = written["involvedObject"]
        assert (involved["kind"], involved["namespace"], involved["name"], involved["uid"]) == (
            "Pod",
            "shop",
            "web",
            "u1",
        )
        assert written["reportingInstance"] == "edge"
