"""A Peer's status: what it says of what is known, and that it says nothing twice."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import pod
from vnode import names
from vnode.kube.objects import Key
from vnode.peers.status import (
    CONDITIONS,
    MAX_NAMESPACES,
    Facts,
    PeerStatus,
    Pods,
    Said,
    as_json,
    peer_status,
    read_status,
)
from vnode.peers.tally import Tally

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)
ACCEPTED = Said("True", names.ACCEPTED)
IN_SERVICE = Said("False", names.IN_SERVICE)
READY = Said("True", names.VNODE_READY, "peer edge answers")
WELL = Facts(answers=True, node=READY, version="v1.37.2", pods=Pods(3, 1, 0), namespaces=["b", "a"], round_trip_s=0.012)


def status(
    before: PeerStatus = PeerStatus(),  # noqa: B008 - frozen
    facts: Facts | None = WELL,
    now: datetime = NOW,
    **more: Any,
) -> PeerStatus:
    given_ = {"accepted": ACCEPTED, "draining": IN_SERVICE, "failure": "", **more}
    return peer_status(before, 4, "edge", facts=facts, now=now, **given_)


def said(found: PeerStatus) -> dict[str, tuple[str, str]]:
    return {each.type: (each.status, each.reason) for each in found.conditions}


def test_when_all_is_well_it_says_so() -> None:
    found = status()
    assert said(found) == {
        "Accepted": ("True", names.ACCEPTED),
        "Reachable": ("True", names.PEER_REACHABLE),
        "Authorized": ("True", names.CREDENTIAL_ACCEPTED),
        "NodeReady": ("True", names.VNODE_READY),
        "Draining": ("False", names.IN_SERVICE),
    }
    assert tuple(said(found)) == CONDITIONS
    assert (found.problem, found.last_error, found.namespaces, found.round_trip) == ("", None, ["a", "b"], "12ms")
    assert (found.node_name, found.peer_version, found.pods) == ("edge", "v1.37.2", Pods(3, 1, 0))
    assert {each.observed_generation for each in found.conditions} == {4}


@pytest.mark.parametrize(
    ("facts", "kind", "expected", "problem"),
    [
        (
            Facts(answers=False, error="/readyz: refused", node=READY),
            "Reachable",
            ("False", names.PEER_UNREACHABLE),
            "PeerUnreachable: /readyz: refused",
        ),
        (
            Facts(answers=False, refusal="Unauthorized", node=READY),
            "Authorized",
            ("False", names.CREDENTIAL_REFUSED),
            "CredentialRefused: Unauthorized",
        ),
        (
            Facts(answers=True, forbidden="pods is forbidden"),
            "Authorized",
            ("False", names.RIGHT_MISSING),
            "RightMissing: pods is forbidden",
        ),
        (
            Facts(answers=True, node=Said("False", names.VNODE_STARTING, "its own stores")),
            "NodeReady",
            ("False", names.VNODE_STARTING),
            "VnodeStarting: its own stores",
        ),
    ],
)
def test_what_is_wrong_is_one_condition_and_the_problem(
    facts: Facts, kind: str, expected: tuple[str, str], problem: str
) -> None:
    found = status(facts=facts)
    assert said(found)[kind] == expected
    assert found.problem == problem
    assert found.last_error is not None
    assert found.last_error.message == problem


def test_a_peer_that_refuses_our_credential_can_be_reached() -> None:
    assert said(status(facts=Facts(answers=False, refusal="Unauthorized")))["Reachable"][0] == "True"


def test_of_a_peer_that_does_not_answer_nobody_knows_whether_it_would_take_the_credential() -> None:
    assert said(status(facts=Facts(answers=False, error="refused")))["Authorized"][0] == "Unknown"


def test_without_a_session_only_what_was_known_of_the_peer_stays() -> None:
    refused = Said("False", names.KUBECONFIG_ABSENT, "no such Secret")
    found = status(status(), facts=None, accepted=refused)
    assert found.peer_version == "v1.37.2"
    assert found.problem == "SecretNotFound: no such Secret"
    assert {each[0] for kind, each in said(found).items() if kind in CONDITIONS[1:4]} == {"Unknown"}


def test_a_condition_keeps_its_time_until_its_status_changes() -> None:
    first = status()
    second = status(first, facts=Facts(answers=False, error="gone", node=READY), now=LATER)
    times = {each.type: each.last_transition_time for each in second.conditions}
    assert times["Reachable"] == "2026-05-01T12:01:00Z"
    assert times["NodeReady"] == "2026-05-01T12:00:00Z"


def test_the_last_error_outlives_its_end_and_is_told_anew_when_it_comes_again() -> None:
    bad = Facts(answers=False, error="gone")
    broken = status(status(), facts=bad)
    mended = status(broken, now=LATER)
    assert mended.problem == ""
    assert mended.last_error == broken.last_error
    again = status(mended, facts=bad, now=LATER)
    assert again.last_error is not None
    assert again.last_error.time == "2026-05-01T12:01:00Z"


def test_a_session_that_ended_is_told_as_the_last_error() -> None:
    found = status(failure="the port is taken").last_error
    assert found is not None
    assert found.message == "the port is taken"


def test_draining_is_the_first_thing_to_know_and_no_error() -> None:
    found = status(draining=Said("True", names.DRAINING, "3 Pods to go"))
    assert (found.problem, found.last_error) == ("Draining: 3 Pods to go", None)


@pytest.mark.parametrize(
    ("shown", "measured_s", "expected"),
    [
        ("", 0.0004, "1ms"),
        ("12ms", 0.02, "12ms"),
        ("12ms", 0.08, "80ms"),
        ("80ms", 0.012, "12ms"),
        ("2ms", 0.009, "2ms"),
        ("12ms", None, "12ms"),
        ("odd", 0.012, "12ms"),
    ],
)
def test_the_round_trip_is_shown_anew_only_when_it_has_changed_much(
    shown: str, measured_s: float | None, expected: str
) -> None:
    before = PeerStatus(round_trip=shown)
    assert status(before, facts=Facts(round_trip_s=measured_s)).round_trip == expected


said_things = st.builds(Said, st.sampled_from(["True", "False", "Unknown"]), st.text(max_size=5), st.text(max_size=5))
some_facts = st.builds(
    Facts,
    answers=st.none() | st.booleans(),
    error=st.text(max_size=4),
    refusal=st.text(max_size=4),
    forbidden=st.text(max_size=4),
    node=st.none() | said_things,
    round_trip_s=st.none() | st.floats(0, 10),
    namespaces=st.lists(st.text(max_size=3)),
)


@given(facts=st.none() | some_facts, accepted=said_things, draining=said_things, failure=st.text(max_size=4))
def test_the_same_again_is_no_news_and_survives_the_apiserver(
    facts: Facts | None, accepted: Said, draining: Said, failure: str
) -> None:
    once = status(facts=facts, accepted=accepted, draining=draining, failure=failure)
    assert read_status(as_json(once)) == once
    assert status(once, facts=facts, accepted=accepted, draining=draining, failure="", now=LATER) == once


def test_what_another_version_wrote_is_no_obstacle() -> None:
    assert read_status({"pods": "many"}) == PeerStatus()
    assert read_status({"nodeName": "edge", "news": 1}).node_name == "edge"


def test_there_are_no_more_namespaces_than_an_object_can_bear() -> None:
    many = [f"n{number:04}" for number in range(500)]
    assert status(facts=Facts(namespaces=many)).namespaces == many[:MAX_NAMESPACES]


@pytest.mark.parametrize(
    ("shown", "counted"),
    [
        (None, Pods(1, 1, 0)),
        ({"phase": "Pending"}, Pods(1, 1, 0)),
        ({"phase": "Running"}, Pods(1, 0, 0)),
        ({"phase": "Succeeded"}, Pods(1, 0, 0)),
        ({"phase": "Failed"}, Pods(1, 0, 1)),
        ({"phase": "Pending", "conditions": [{"type": "vnode.dev/Remote", "status": "False"}]}, Pods(1, 0, 1)),
        ({"containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]}, Pods(1, 1, 0)),
        ({"containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff"}}}]}, Pods(1, 0, 1)),
        (
            {"phase": "Running", "containerStatuses": [{"state": {"waiting": {"reason": "CrashLoopBackOff"}}}]},
            Pods(1, 0, 1),
        ),
        ({"initContainerStatuses": [{"state": {"waiting": {"reason": "PodInitializing"}}}]}, Pods(1, 1, 0)),
    ],
)
def test_a_pod_counts_as_what_it_is(shown: dict[str, Any] | None, counted: Pods) -> None:
    tally, item = Tally(), pod(status=shown)
    tally.changed(item.key, None, item)
    assert (tally.pods, tally.namespaces) == (counted, ["shop"])


def test_a_tally_follows_changes_and_forgets_what_is_gone() -> None:
    tally = Tally()
    failed, runs = pod(status={"phase": "Failed"}), pod(status={"phase": "Running"})
    tally.changed(failed.key, None, failed)
    tally.changed(failed.key, failed, runs)
    assert tally.pods == Pods(1, 0, 0)
    tally.changed(failed.key, runs, None)
    tally.changed(Key("shop", "never-seen"), runs, None)
    assert (tally.pods, tally.namespaces) == (Pods(), [])
