"""pods.status: what home is shown, what never goes back, whose conditions are left alone, and that it comes to rest."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import (
    EARLIER,
    NOW,
    OPEN_VIEW,
    STAMP,
    VIEW,
    condition,
    container,
    container_status,
    finished,
    mirror_of,
    pod,
    remote_condition,
    running,
)
from tests.strategic import patched
from tests.strategies import conditions, container_statuses, statuses, words
from vnode import names
from vnode.kube.objects import JsonDict, Object
from vnode.pods.fields import STATUS
from vnode.pods.status import (
    TERMINAL,
    View,
    done,
    lost_patch,
    remote_condition_patch,
    started,
    status_patch,
    unready_patch,
)

RANK = {"": 0, "Unknown": 0, "Pending": 1, "Running": 2, "Succeeded": 3, "Failed": 3}


def shown(local: Object, theirs: JsonDict, view: View = VIEW, *, in_step: bool = True) -> Object:
    """Home's Pod once it has been told of `theirs`."""
    patch = status_patch(local, mirror_of(local, status=theirs), view, in_step=in_step)
    return patched(local, patch) if patch else local


def status_of(theirs: JsonDict, view: View = VIEW, **local: Any) -> JsonDict:
    return shown(pod(**local), theirs, view).status()


def by_type(status: JsonDict) -> dict[str, JsonDict]:
    return {entry["type"]: entry for entry in status.get("conditions") or ()}


# --- what home is shown ---


def test_a_running_mirror_makes_home_run_at_our_address() -> None:
    there = running()
    there["conditions"] = [condition("Ready")]
    assert status_of(there) == {
        "phase": "Running",
        "startTime": EARLIER,
        "hostIP": "10.0.0.1",
        "hostIPs": [{"ip": "10.0.0.1"}],
        "observedGeneration": 1,
        "conditions": [condition("Ready", observedGeneration=1)],
        "containerStatuses": [container_status()],
    }


def test_pod_addresses_are_shown_where_home_can_reach_them() -> None:
    there = running(podIPs=[{"ip": "10.7.0.3"}, {"ip": "fd00::3"}])
    here = status_of(there, OPEN_VIEW)
    assert (here["podIP"], here["podIPs"]) == ("10.7.0.3", [{"ip": "10.7.0.3"}, {"ip": "fd00::3"}])
    there = {"podIP": "10.7.0.3"}
    assert status_of(there, OPEN_VIEW)["podIPs"] == [{"ip": "10.7.0.3"}]


def test_pod_addresses_go_when_they_are_hidden_or_lost() -> None:
    local = shown(pod(), running(), OPEN_VIEW)
    for view, there in ((VIEW, running()), (OPEN_VIEW, {"phase": "Running"})):
        assert not {"podIP", "podIPs"} & set(shown(local, there, view).status())


def test_new_addresses_replace_the_old_ones() -> None:
    local = shown(pod(), running(), OPEN_VIEW)
    here = shown(local, running(podIP="10.7.9.9", podIPs=[{"ip": "10.7.9.9"}]), View("10.0.0.2", True)).status()
    assert (here["podIP"], here["podIPs"]) == ("10.7.9.9", [{"ip": "10.7.9.9"}])
    assert (here["hostIP"], here["hostIPs"]) == ("10.0.0.2", [{"ip": "10.0.0.2"}])


def test_a_mirror_without_an_address_of_its_host_shows_none() -> None:
    assert not {"hostIP", "hostIPs"} & set(status_of({"phase": "Pending"}))


@pytest.mark.parametrize("field", sorted(name for name, entry in STATUS.items() if entry.fate == "carried"))
def test_carried_fields_are_shown(field: str) -> None:
    assert status_of({"phase": "Running", field: "it"})[field] == "it"


@pytest.mark.parametrize("field", sorted(name for name, entry in STATUS.items() if entry.fate == "home-only"))
def test_fields_of_home_alone_are_not_written(field: str) -> None:
    assert status_of({"phase": "Running", field: "theirs"}, status={field: "ours"})[field] == "ours"


def test_a_field_nobody_has_heard_of_is_shown() -> None:
    assert status_of({"phase": "Running", "mood": {"is": "good"}})["mood"] == {"is": "good"}


def test_reason_and_message_go_when_the_mirror_has_them_no_more() -> None:
    local = shown(pod(), running(reason="Slow", message="disk", resize="Proposed"))
    assert {"reason", "message", "resize"} <= set(local.status())
    assert not {"reason", "message", "resize"} & set(shown(local, running()).status())


def test_containers_that_the_peer_put_in_do_not_show() -> None:
    listed = [container_status("mesh"), container_status("side"), container_status("main")]
    spec = {"containers": [container("main"), container("side")], "initContainers": [container("first")]}
    here = status_of({"containerStatuses": listed, "initContainerStatuses": [container_status("mesh-init")]}, spec=spec)
    assert here["containerStatuses"] == [container_status("main"), container_status("side")]
    assert "initContainerStatuses" not in here


def test_every_list_of_containers_is_shown_in_the_order_of_the_spec() -> None:
    spec = {
        "initContainers": [container("i"), container("j")],
        "ephemeralContainers": [container("e")],
    }
    here = status_of(
        {
            "initContainerStatuses": [container_status("j"), container_status("i")],
            "ephemeralContainerStatuses": [container_status("e")],
        },
        spec=spec,
    )
    assert [entry["name"] for entry in here["initContainerStatuses"]] == ["i", "j"]
    assert [entry["name"] for entry in here["ephemeralContainerStatuses"]] == ["e"]


def test_nothing_is_written_when_home_shows_it_all() -> None:
    local = shown(pod(), running())
    assert status_patch(local, mirror_of(local, status=running()), VIEW, in_step=True) is None


def test_only_what_differs_is_written() -> None:
    local = shown(pod(), running())
    there = running(restarts=1)
    patch = status_patch(local, mirror_of(local, status=there), VIEW, in_step=True)
    assert patch == {"metadata": {"uid": "u1"}, "status": {"containerStatuses": [container_status(restarts=1)]}}


# --- what never goes back ---


@pytest.mark.parametrize("here", ["Pending", "Running"])
@pytest.mark.parametrize("there", ["", "Unknown", "Pending", "Running", "Succeeded", "Failed"])
def test_the_phase_never_goes_back(here: str, there: str) -> None:
    expected = there if RANK[there] >= RANK[here] else here
    assert status_of({"phase": there}, status={"phase": here})["phase"] == expected


@pytest.mark.parametrize("here", sorted(TERMINAL))
@pytest.mark.parametrize("there", ["Running", "Succeeded", "Failed"])
def test_a_finished_pod_stays_as_it_is(here: str, there: str) -> None:
    local = pod(status={"phase": here})
    assert status_patch(local, mirror_of(local, status=running(phase=there)), VIEW, in_step=True) is None


def test_the_start_is_told_once() -> None:
    assert status_of({"startTime": STAMP}, status={"startTime": EARLIER})["startTime"] == EARLIER
    assert status_of({"startTime": STAMP})["startTime"] == STAMP


def test_restart_counts_never_fall() -> None:
    local = shown(pod(), running(restarts=3))
    assert shown(local, running(restarts=1)).status()["containerStatuses"][0]["restartCount"] == 3
    assert shown(local, running(restarts=4)).status()["containerStatuses"][0]["restartCount"] == 4


def test_a_container_the_peer_has_no_word_of_keeps_its_last_one() -> None:
    local = shown(pod(spec={"containers": [container("main"), container("side")]}), running(restarts=3))
    there = running(name="side")
    assert shown(local, there).status()["containerStatuses"] == [
        container_status(restarts=3),
        container_status("side"),
    ]


# --- generations ---


def test_homes_generation_counts_once_the_mirror_has_it() -> None:
    local = shown(pod(generation=4), running())
    assert local.status()["observedGeneration"] == 4
    assert by_type(local.status())["Ready"]["observedGeneration"] == 4


def test_an_edit_on_its_way_changes_no_generation() -> None:
    seen = shown(pod(generation=1), running())
    edited = pod(generation=2, status=seen.status())
    there = mirror_of(edited, status=running())
    assert status_patch(edited, there, VIEW, in_step=False) is None
    assert shown(edited, running(), in_step=True).status()["observedGeneration"] == 2


# --- conditions ---


def test_home_schedules_for_itself() -> None:
    ours = condition("PodScheduled", observedGeneration=1)
    here = status_of({"conditions": [condition("PodScheduled", since=STAMP)]}, status={"conditions": [ours]})
    assert by_type(here)["PodScheduled"] == ours


def test_a_mirror_that_cannot_be_scheduled_is_told_by_our_condition() -> None:
    unschedulable = condition("PodScheduled", "False", reason="Unschedulable", message="0/3 nodes", lastProbeTime=None)
    local = shown(pod(), {"phase": "Pending", "conditions": [unschedulable]})
    told = remote_condition(local.status())
    assert told == condition(names.REMOTE_CONDITION, "False", reason="Unschedulable", message="0/3 nodes")
    assert (
        remote_condition(shown(local, {"phase": "Pending", "conditions": [condition("PodScheduled")]}).status()) is None
    )


FOREIGN = ["example.com/ready", "vendor.io/healthy", "ready-to-serve", "DisruptionTarget"]


@pytest.mark.parametrize("kind", FOREIGN)
def test_conditions_of_others_are_left_alone(kind: str) -> None:
    theirs = condition(kind, "Unknown", reason="Theirs", extra="kept")
    assert by_type(status_of(running(), status={"conditions": [theirs]}))[kind] == theirs


@pytest.mark.parametrize("kind", ["example.com/ready", "ready-to-serve"])
def test_a_gate_of_home_is_not_judged_at_the_peer(kind: str) -> None:
    ours = condition(kind, "False")
    here = status_of(
        running(conditions=[condition(kind)]),
        spec={"readinessGates": [{"conditionType": kind}]},
        status={"conditions": [ours]},
    )
    assert by_type(here)[kind] == ours


@pytest.mark.parametrize("kind", ["PodResizePending", "PodResizeInProgress", "AllContainersRestarting"])
def test_the_kubelets_conditions_go_when_it_drops_them(kind: str) -> None:
    local = shown(pod(), running(conditions=[condition("Ready"), condition(kind)]))
    assert set(by_type(local.status())) == {"Ready", kind}
    assert set(by_type(shown(local, running(conditions=[condition("Ready")])).status())) == {"Ready"}


def test_an_eviction_at_the_peer_shows_as_one_at_home() -> None:
    target = condition("DisruptionTarget", reason="TerminationByKubelet", message="low on memory")
    here = status_of({"phase": "Failed", "reason": "Evicted", "conditions": [target]})
    assert (here["phase"], here["reason"]) == ("Failed", "Evicted")
    assert by_type(here)["DisruptionTarget"]["reason"] == "TerminationByKubelet"


def test_a_transition_time_moves_only_with_the_status() -> None:
    local = shown(pod(), running())
    same = running(conditions=[condition("Ready", since=STAMP, reason="Still")])
    assert by_type(shown(local, same).status())["Ready"]["lastTransitionTime"] == EARLIER
    other = running(conditions=[condition("Ready", "False", since=STAMP)])
    assert by_type(shown(local, other).status())["Ready"]["lastTransitionTime"] == STAMP


def test_reason_and_message_of_a_condition_go_with_it() -> None:
    local = shown(pod(), running(conditions=[condition("Ready", "False", reason="No", message="not yet")]))
    ready = by_type(shown(local, running(conditions=[condition("Ready", since=STAMP)])).status())["Ready"]
    assert ready == condition("Ready", since=STAMP, observedGeneration=1)


GATE: dict[str, Any] = {"spec": {"readinessGates": [{"conditionType": "example.com/open"}]}}


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ([], 'corresponding condition of pod readiness gate "example.com/open" does not exist.'),
        (
            [condition("example.com/open", "False")],
            'the status of pod readiness gate "example.com/open" is not "True", but False',
        ),
    ],
)
def test_ready_waits_for_homes_gates(held: list[JsonDict], message: str) -> None:
    ready = by_type(status_of(running(), **GATE, status={"conditions": held}))["Ready"]
    assert (ready["status"], ready["reason"], ready["message"]) == ("False", "ReadinessGatesNotReady", message)


def test_ready_comes_with_the_last_gate_and_since_then() -> None:
    opened = condition("example.com/open", since=STAMP)
    ready = by_type(status_of(running(), **GATE, status={"conditions": [opened]}))["Ready"]
    assert (ready["status"], ready["lastTransitionTime"]) == ("True", STAMP)
    assert "reason" not in ready


def test_gates_do_not_touch_a_pod_that_is_not_ready_at_the_peer() -> None:
    there = running(conditions=[condition("Ready", "False", reason="ContainersNotReady")])
    assert by_type(status_of(there, **GATE))["Ready"]["reason"] == "ContainersNotReady"


# --- our own condition ---


def test_a_refusal_is_told_once_on_the_pod() -> None:
    patch = remote_condition_patch(pod(), names.UNSUPPORTED_FIELD, "spec.x: no", NOW)
    assert patch is not None
    local = patched(pod(status={"conditions": [condition("PodScheduled")]}), patch)
    assert remote_condition(local.status()) == condition(
        names.REMOTE_CONDITION, "False", STAMP, reason="UnsupportedField", message="spec.x: no"
    )
    assert "PodScheduled" in by_type(local.status())
    assert remote_condition_patch(local, names.UNSUPPORTED_FIELD, "spec.x: no", NOW) is None
    assert remote_condition_patch(local, names.UNSUPPORTED_FIELD, "spec.y: no", NOW) is not None


def test_a_refusal_goes_once_the_mirror_is_in_step_and_not_before() -> None:
    patch = remote_condition_patch(pod(), names.REMOTE_REFUSED, "no", NOW)
    assert patch is not None
    local = patched(pod(), patch)
    unscheduled = {"conditions": [condition("PodScheduled", "False", reason="Unschedulable")]}
    for there in (running(), unscheduled):
        told = remote_condition(shown(local, there, in_step=False).status())
        assert told is not None
        assert told["reason"] == names.REMOTE_REFUSED
    assert remote_condition(shown(local, running()).status()) is None


def test_a_long_message_is_cut() -> None:
    patch = remote_condition_patch(pod(), "R", "x" * 5000, NOW)
    assert patch is not None
    assert len(patch["status"]["conditions"][0]["message"]) == 1024


# --- a peer that does not answer ---


def test_a_pod_nobody_can_see_is_not_ready_and_ready_again_by_the_truth_alone() -> None:
    local = shown(pod(), running(restarts=2))
    patch = unready_patch(local, NOW)
    assert patch is not None
    unseen = patched(local, patch)
    ready = by_type(unseen.status())["Ready"]
    assert (ready["status"], ready["reason"], ready["lastTransitionTime"]) == ("False", names.PEER_UNREACHABLE, STAMP)
    assert unready_patch(unseen, NOW) is None
    kept = {name: value for name, value in local.status().items() if name != "conditions"}
    assert {name: value for name, value in unseen.status().items() if name != "conditions"} == kept
    healed = by_type(shown(unseen, running(restarts=2)).status())["Ready"]
    assert healed == by_type(local.status())["Ready"]


@pytest.mark.parametrize("status", [{}, {"phase": "Pending"}, {"conditions": [condition("Ready", "False")]}])
def test_a_pod_that_is_not_ready_is_left_alone_when_the_peer_is_away(status: JsonDict) -> None:
    assert unready_patch(pod(status=status), NOW) is None


# --- a mirror that is lost ---


def after_loss(local: Object, last: Object | None = None) -> Object:
    patch = lost_patch(local, last, VIEW, NOW)
    return patched(local, patch) if patch else local


def test_a_lost_pod_has_failed_and_so_have_its_containers() -> None:
    spec = {"containers": [container("main"), container("side")], "initContainers": [container("first")]}
    ended = {"terminated": {"exitCode": 0, "finishedAt": EARLIER}}
    first = container_status("first", ready=False, state=ended)
    local = shown(pod(spec=spec), running(restarts=2, initContainerStatuses=[first]))
    here = after_loss(local).status()
    assert (here["phase"], here["reason"]) == ("Failed", names.REMOTE_POD_LOST)
    assert here["initContainerStatuses"] == [first]
    main, side = here["containerStatuses"]
    assert main["state"]["terminated"]["exitCode"] == 137
    assert main["state"]["terminated"]["reason"] == "ContainerStatusUnknown"
    assert (main["state"]["terminated"]["startedAt"], main["state"]["terminated"]["finishedAt"]) == (EARLIER, STAMP)
    assert (main["restartCount"], main["ready"], main["started"]) == (2, False, False)
    assert (side["name"], side["restartCount"], side["state"]["terminated"]["exitCode"]) == ("side", 0, 137)
    assert here["startTime"] == EARLIER
    for kind in ("Ready", "ContainersReady"):
        entry = by_type(here)[kind]
        assert (entry["status"], entry["reason"], entry["lastTransitionTime"]) == ("False", "PodFailed", STAMP)
    assert by_type(here)["Initialized"]["status"] == "True"


def test_a_pod_lost_after_it_had_finished_is_told_how_it_ended() -> None:
    local = shown(pod(), running())
    here = after_loss(local, mirror_of(local, status=finished("Succeeded"))).status()
    assert here["phase"] == "Succeeded"
    assert here["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 0
    assert "reason" not in here


@pytest.mark.parametrize("phase", sorted(TERMINAL))
def test_a_finished_pod_cannot_be_lost(phase: str) -> None:
    local = pod(status={"phase": phase})
    assert lost_patch(local, None, VIEW, NOW) is None
    assert lost_patch(local, mirror_of(local, status=finished("Failed")), VIEW, NOW) is None


def test_a_lost_pod_is_lost_once() -> None:
    assert lost_patch(after_loss(shown(pod(), running())), None, VIEW, NOW) is None


# --- any status at all ---

SPEC = {
    "containers": [container("main"), container("side")],
    "initContainers": [container("first")],
    "readinessGates": [{"conditionType": "example.com/open"}],
}
own = st.fixed_dictionaries(
    {},
    optional={
        "phase": st.just("Pending"),
        "qosClass": st.just("Burstable"),
        "conditions": st.builds(
            lambda theirs, gate: [*theirs, condition("example.com/open", gate), condition("other", "False")],
            conditions,
            words,
        ),
        "containerStatuses": container_statuses(["main", "side"]),
    },
)
views = st.sampled_from([VIEW, OPEN_VIEW, View("10.0.0.2", True)])


@given(own, st.lists(st.tuples(statuses, views, st.booleans()), min_size=1, max_size=6))
def test_any_series_of_statuses_comes_to_rest_and_never_goes_back(
    start: JsonDict, series: list[tuple[JsonDict, View, bool]]
) -> None:
    local = pod(generation=3, spec=SPEC, status=start)
    foreign = [entry for entry in start.get("conditions") or () if entry["type"] in ("example.com/open", "other")]
    for theirs, view, in_step in series:
        before, given_ = local.status(), copy.deepcopy(theirs)
        local = shown(local, theirs, view, in_step=in_step)
        here = local.status()
        assert theirs == given_
        assert status_patch(local, mirror_of(local, status=theirs), view, in_step=in_step) is None, "at rest"
        assert RANK[here.get("phase", "")] >= RANK[before.get("phase", "")]
        if before.get("phase") in TERMINAL:
            assert here == before
        if before.get("startTime"):
            assert here["startTime"] == before["startTime"]
        for listed in ("containerStatuses", "initContainerStatuses"):
            now = {entry["name"]: entry["restartCount"] for entry in here.get(listed) or ()}
            assert "injected" not in now
            for entry in before.get(listed) or ():
                assert now[entry["name"]] >= entry["restartCount"]
        assert [
            entry for entry in here.get("conditions") or () if entry["type"] in ("example.com/open", "other")
        ] == foreign
        assert here.get("qosClass") == start.get("qosClass")
        if "podIPs" in here:
            assert [entry["ip"] for entry in here["podIPs"]] == [here["podIP"]]
        if "hostIPs" in here:
            assert [entry["ip"] for entry in here["hostIPs"]] == [here["hostIP"]]


@given(own, statuses, statuses)
def test_a_loss_after_anything_ends_the_pod_for_good(start: JsonDict, seen: JsonDict, last: JsonDict) -> None:
    local = shown(pod(generation=3, spec=SPEC, status=start), seen)
    gone = mirror_of(local, status=last)
    ended = after_loss(local, gone)
    assert done(ended)
    assert lost_patch(ended, gone, VIEW, NOW) is None
    assert status_patch(ended, gone, VIEW, in_step=True) is None
    if not done(local) and not done(gone):
        assert all("terminated" in entry["state"] for entry in ended.status()["containerStatuses"])


def test_started_and_done_are_facts_of_the_status() -> None:
    assert [started(pod(status=status)) for status in ({}, {"startTime": STAMP})] == [False, True]
    phases = ("", "Pending", "Running", "Succeeded", "Failed")
    assert [done(pod(status={"phase": phase})) for phase in phases] == [False, False, False, True, True]
    assert not done(pod())


def test_the_generation_alone_is_not_worth_a_write_before_the_start_and_after_the_end() -> None:
    pending, started_at = {"phase": "Pending"}, {"phase": "Running", "startTime": EARLIER}
    for here, there, leaving, written in (
        (pending, pending, False, False),
        (started_at, started_at, False, True),
        (started_at, started_at, True, False),
    ):
        deletion: dict[str, Any] = {"deletionTimestamp": EARLIER} if leaving else {}
        local = pod(generation=2, status=here, **deletion)
        assert (status_patch(local, mirror_of(local, status=there), VIEW, in_step=True) is not None) == written
