"""pods.plan: the next step for each pair, by table. `test_plan_world.py` shows that the steps lead somewhere."""

from typing import Any

import pytest

from tests.builders import NOW, ROUTE, STAMP, VIEW, condition, container, finished, mirror_of, pod, running
from tests.strategic import patched
from vnode import names
from vnode.kube.objects import Key, Object
from vnode.pods.plan import Action, Create, DeleteRemote, Refuse, ReleaseLocal, Update, WriteStatus, plan
from vnode.pods.status import remote_condition_patch, status_patch
from vnode.pods.translate import remote_pod

PLACE = Key("shop-home", "web")


def step(local: Object | None, remote: Object | None = None, lost: Object | None = None) -> Action | None:
    return plan(local, remote, lost, ROUTE, VIEW, NOW)


def leaving(grace: int | None = 30, **fields: Any) -> Object:
    return pod(deletionTimestamp=STAMP, deletionGracePeriodSeconds=grace, **fields)


def leaving_mirror(local: Object, grace: int = 30, **fields: Any) -> Object:
    return mirror_of(local, deletionTimestamp=STAMP, deletionGracePeriodSeconds=grace, **fields)


def told(local: Object, remote: Object) -> Object:
    """`local` once home shows what `remote` says."""
    patch = status_patch(local, remote, VIEW, in_step=True)
    return patched(local, patch) if patch else local


# --- no mirror ---


def test_a_new_pod_gets_a_mirror() -> None:
    action = step(pod())
    assert isinstance(action, Create)
    stamped = action.manifest["metadata"]["annotations"].pop(names.APPLIED)
    assert stamped
    assert action.manifest == remote_pod(pod(), ROUTE)


def test_nothing_and_nothing_is_at_rest() -> None:
    assert step(None) is None
    assert step(None, None, mirror_of(pod())) is None


def test_a_pod_that_cannot_travel_is_refused_with_the_field() -> None:
    action = step(pod(spec={"resourceClaims": [{"name": "gpu"}]}))
    assert isinstance(action, Refuse)
    assert action.reason == names.UNSUPPORTED_FIELD
    assert action.message.startswith("spec.resourceClaims: ")


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_finished_pod_is_never_started_again(phase: str) -> None:
    assert step(pod(status=finished(phase))) is None
    assert step(pod(status=finished(phase)), None, mirror_of(pod(), status=running())) is None


def test_a_pod_that_ran_and_lost_its_mirror_has_failed() -> None:
    action = step(pod(status=running()))
    assert isinstance(action, WriteStatus)
    assert action.patch["status"]["phase"] == "Failed"
    assert action.patch["status"]["reason"] == names.REMOTE_POD_LOST


def test_a_pod_whose_mirror_was_seen_to_start_and_go_has_failed() -> None:
    action = step(pod(), None, mirror_of(pod(), status=running()))
    assert isinstance(action, WriteStatus)
    assert action.patch["status"]["phase"] == "Failed"


@pytest.mark.parametrize("ending", [finished("Succeeded"), {"phase": "Failed", "reason": "OutOfcpu"}])
def test_a_mirror_that_ended_before_it_went_tells_how(ending: dict[str, Any]) -> None:
    action = step(pod(), None, mirror_of(pod(), status=ending))
    assert isinstance(action, WriteStatus)
    assert action.patch["status"]["phase"] == ending["phase"]
    assert action.patch["status"].get("reason") == ending.get("reason")


def test_a_mirror_that_never_started_is_made_again() -> None:
    assert isinstance(step(pod(), None, mirror_of(pod(), status={"phase": "Pending"})), Create)


def test_the_lost_mirror_of_an_earlier_pod_does_not_count() -> None:
    earlier = mirror_of(pod(uid="u0"), status=running())
    assert isinstance(step(pod(uid="u1"), None, earlier), Create)


# --- no mirror, and home is going ---


def test_a_leaving_pod_without_a_mirror_is_let_go() -> None:
    assert step(leaving()) == ReleaseLocal("u1")
    assert step(leaving(status=running())) == ReleaseLocal("u1")
    assert step(leaving(status=finished())) == ReleaseLocal("u1")


def test_a_release_that_broke_off_after_the_grace_was_written_is_repeated() -> None:
    assert step(leaving(0)) == ReleaseLocal("u1")


def test_a_leaving_pod_that_was_let_go_and_is_held_by_others_is_at_rest() -> None:
    assert step(leaving(grace=0, finalizers=["example.com/kept"], status=finished())) is None


def test_a_job_learns_how_its_leaving_pod_ended_before_it_is_let_go() -> None:
    held = leaving(finalizers=["batch.kubernetes.io/job-tracking"], status=running())
    action = step(held, None, mirror_of(pod(), status=finished("Succeeded")))
    assert isinstance(action, WriteStatus)
    assert action.patch["status"]["phase"] == "Succeeded"
    assert step(patched(held, action.patch)) == ReleaseLocal("u1")


def test_a_job_is_told_of_a_failure_where_the_end_was_not_seen() -> None:
    action = step(leaving(grace=0, finalizers=["batch.kubernetes.io/job-tracking"], status=running()))
    assert isinstance(action, WriteStatus)
    assert action.patch["status"]["phase"] == "Failed"


# --- a mirror nobody wants ---


def test_a_mirror_without_a_home_pod_is_an_orphan() -> None:
    assert step(None, mirror_of(pod())) == DeleteRemote(PLACE, "r1", orphan=True)
    assert step(None, leaving_mirror(pod())) is None


def test_the_mirror_of_an_earlier_pod_goes_first() -> None:
    earlier = mirror_of(pod(uid="u0"), status=running())
    assert step(pod(), earlier) == DeleteRemote(PLACE, "r1", orphan=True)
    assert step(leaving(), earlier) == DeleteRemote(PLACE, "r1", orphan=True)
    assert step(pod(), leaving_mirror(pod(uid="u0"))) is None


# --- a pair ---


def test_a_mirrors_status_goes_up() -> None:
    action = step(pod(), mirror_of(pod(), status=running()))
    assert isinstance(action, WriteStatus)
    assert action.patch["status"]["phase"] == "Running"


def test_a_pair_that_agrees_is_at_rest() -> None:
    remote = mirror_of(pod(), status=running())
    assert step(told(pod(), remote), remote) is None


def test_an_edit_goes_down() -> None:
    remote = mirror_of(pod(), status=running())
    edited = pod(spec={"containers": [container(image="app:2")]}, status=told(pod(), remote).status(), generation=2)
    action = step(edited, remote)
    assert isinstance(action, Update)
    assert (action.key, [patch.subresource for patch in action.patches]) == (PLACE, [""])


@pytest.mark.parametrize("theirs", [running(restarts=3), running(ready=False), {"phase": "Pending"}])
def test_an_edit_the_peer_does_not_take_does_not_freeze_home(theirs: dict[str, Any]) -> None:
    edited = pod(spec={"containers": [container(image="app:2")]}, status=told(pod(), mirror_of(pod())).status())
    remote = mirror_of(pod(), status=theirs)
    action = step(edited, remote)
    assert isinstance(action, WriteStatus)
    edited = patched(edited, action.patch)
    assert isinstance(step(edited, remote), Update)
    refusal = remote_condition_patch(edited, names.REMOTE_REFUSED, "policy says no", NOW)
    assert refusal is not None
    # Told of the refusal, vnode does not take it back while it holds.
    assert isinstance(step(patched(edited, refusal), remote), Update)


@pytest.mark.parametrize("ending", ["Succeeded", "Failed"])
def test_a_finished_pair_is_at_rest_and_takes_no_edits(ending: str) -> None:
    remote = mirror_of(pod(), status=finished(ending))
    home = told(pod(), remote)
    assert step(home, remote) is None
    assert step(pod(labels={"new": "label"}, status=home.status()), remote) is None


@pytest.mark.parametrize("ending", ["Succeeded", "Failed"])
def test_what_home_calls_finished_runs_nowhere(ending: str) -> None:
    home = pod(status={"phase": ending})
    assert step(home, mirror_of(pod(), status=running())) == DeleteRemote(PLACE, "r1")
    assert step(home, leaving_mirror(pod(), status=running())) is None


def test_a_config_change_that_would_refuse_a_running_pod_leaves_it_running_and_says_so() -> None:
    refused = pod(spec={"resourceClaims": [{"name": "gpu"}]}, status={"conditions": [condition("PodScheduled")]})
    remote = mirror_of(pod(), status=running())
    action = step(refused, remote)
    assert isinstance(action, WriteStatus)
    assert isinstance(step(patched(refused, action.patch), remote), Refuse)
    ended = mirror_of(pod(), status=finished())
    assert step(told(refused, ended), ended) is None


# --- a pair, and one of them is going ---


@pytest.mark.parametrize(("grace", "sent"), [(30, 30), (5, 5), (0, 1), (None, 1)])
def test_a_deletion_goes_down_with_the_users_grace(grace: int | None, sent: int) -> None:
    assert step(leaving(grace), mirror_of(pod(), status=running())) == DeleteRemote(PLACE, "r1", grace_s=sent)


def test_a_shorter_grace_overtakes_a_longer_one_and_not_the_other_way() -> None:
    remote = leaving_mirror(pod(), grace=30, status=running())
    home = told(leaving(grace=2), remote)
    assert step(home, remote) == DeleteRemote(PLACE, "r1", grace_s=2)
    assert step(told(leaving(grace=60), remote), remote) is None


def test_the_status_goes_up_while_both_are_going() -> None:
    home = leaving(status=running())
    action = step(home, leaving_mirror(pod(), status=finished("Failed")))
    assert isinstance(action, WriteStatus)
    assert action.patch["status"]["phase"] == "Failed"


def test_home_is_not_let_go_before_the_mirror_is_gone() -> None:
    remote = leaving_mirror(pod(), status=finished("Failed"))
    assert step(told(leaving(status=running()), remote), remote) is None


def test_a_mirror_deleted_behind_our_back_takes_no_edits() -> None:
    remote = leaving_mirror(pod(), status=running())
    home = told(pod(), remote)
    assert step(pod(labels={"new": "label"}, status=home.status()), remote) is None


def test_a_finished_mirror_goes_with_its_home() -> None:
    home = leaving(status=finished())
    assert step(home, mirror_of(pod(), status=finished())) == DeleteRemote(PLACE, "r1", grace_s=30)
