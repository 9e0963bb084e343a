"""How Pods end: gracefully, in haste, by force, by eviction, or behind our back at the peer."""

import pytest

from tests.expect import eventually
from tests.world.api import Json, Recorder, Refusal
from tests.world.manifests import deployment, pod
from tests.world.vnodes import Space, condition, is_ready, origin_uid, uid, uids
from vnode import names


def _slow(seconds: int) -> dict[str, str]:
    return {"kwok.test/stop-after": f"{seconds}s"}


def test_a_deleted_pod_stays_until_its_containers_have_ended_at_the_peer(space: Space) -> None:
    space.create(pod("polite", "edge-a", annotations=_slow(3), terminationGracePeriodSeconds=40))
    space.wait_ready("polite")
    space.kubectl("delete", "pod", "polite", "--wait=false")
    leaving = eventually("its mirror is leaving", lambda: _leaving(space.mirror("polite")))
    assert leaving["metadata"]["deletionGracePeriodSeconds"] == 40
    at_home = space.pods()["polite"]
    assert at_home["metadata"]["deletionGracePeriodSeconds"] == 40
    assert "Terminating" in space.kubectl("get", "pods")
    eventually("home lets go", lambda: space.pod("polite") is None)
    assert space.mirror("polite") is None


def test_the_grace_period_a_user_gives_reaches_the_peer_and_may_be_shortened(space: Space) -> None:
    space.create(pod("slow", "edge-a", annotations=_slow(600), terminationGracePeriodSeconds=30))
    space.wait_ready("slow")
    space.kubectl("delete", "pod", "slow", "--grace-period=77", "--wait=false")
    eventually("77 s at the peer", lambda: _grace(space.mirror("slow")) == 77)
    space.kubectl("delete", "pod", "slow", "--grace-period=5", "--wait=false")
    eventually("5 s at the peer", lambda: _grace(space.mirror("slow")) == 5)
    space.peer.delete("Pod", space.remote, "slow", grace_s=0)
    eventually("home lets go", lambda: space.pod("slow") is None)


def test_a_forced_deletion_leaves_nothing_behind(space: Space) -> None:
    space.create(pod("forced", "edge-a", annotations=_slow(1)))
    space.wait_ready("forced")
    space.kubectl("delete", "pod", "forced", "--force", "--grace-period=0")
    assert space.pod("forced") is None
    eventually("the mirror is gone", lambda: space.mirror("forced") is None)
    space.settle()
    assert not space.pods()
    assert not space.mirrors()


def test_a_pod_recreated_after_a_forced_deletion_waits_for_the_old_mirror(space: Space) -> None:
    space.create(pod("twice", "edge-a", annotations=_slow(2)))
    old = space.wait_ready("twice")["twice"]
    there = Recorder(space.peer, "Pod", space.remote)
    space.home.delete("Pod", space.name, "twice", grace_s=0)
    space.create(pod("twice", "edge-a"))
    new = space.wait_ready("twice")["twice"]
    assert uid(new) != uid(old)
    assert [(what, origin_uid(item)) for what, item in there.stop() if what != "MODIFIED"] == [
        ("DELETED", uid(old)),
        ("ADDED", uid(new)),
    ]


def test_a_pod_deleted_before_it_ran_goes_at_once(space: Space) -> None:
    space.create(pod("unborn", "edge-a", annotations={"kwok.test/ready-after": "600s"}))
    eventually("it has a mirror", lambda: space.mirror("unborn"))
    space.kubectl("delete", "pod", "unborn", "--timeout=20s")
    space.wait_gone()


def test_a_finalizer_holds_the_home_pod_and_nothing_else(space: Space) -> None:
    space.create(pod("held", "edge-a", finalizers=["example.com/hold"]))
    before = space.wait_ready("held")["held"]
    there = Recorder(space.peer, "Pod", space.remote)
    space.home.delete("Pod", space.name, "held")
    eventually("the mirror is gone", lambda: space.mirror("held") is None)
    eventually("it has ended at home", lambda: space.pods()["held"]["status"]["phase"] == "Failed")
    ended = space.pods()["held"]["status"]["containerStatuses"][0]["state"]["terminated"]
    assert ended["exitCode"] == 143  # the process's own, not that of a container that is lost
    space.settle()
    assert uid(space.pods()["held"]) == uid(before)
    space.home.patch("Pod", space.name, "held", {"metadata": {"finalizers": None}})
    eventually("it is gone", lambda: space.pod("held") is None)
    assert uid(before) not in {origin_uid(item) for what, item in there.stop() if what == "ADDED"}


def test_evictions_are_graceful_and_budgets_hold(space: Space) -> None:
    budget = {"minAvailable": 2, "selector": {"matchLabels": {"app": "web"}}}
    metadata = {"name": "web"}
    space.create(
        {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": metadata, "spec": budget},
        deployment("web", "edge-a", 2, annotations=_slow(1)),
    )
    space.rolled_out("deployment/web")
    before = space.wait_one_to_one(2)
    victim = min(before)
    eventually("the budget is counted", lambda: _budget(space).get("expectedPods") == 2)
    with pytest.raises(Refusal, match="disruption budget"):
        space.home.evict(space.name, victim)
    space.home.patch("PodDisruptionBudget", space.name, "web", {"spec": {"minAvailable": 1}})
    eventually("one may go", lambda: _budget(space).get("disruptionsAllowed") == 1)
    space.home.evict(space.name, victim)
    eventually("another took its place", lambda: victim not in space.pods())
    after = space.wait_one_to_one(2)
    assert len(uids(before).items() & uids(after).items()) == 1


def test_a_mirror_deleted_behind_our_back_ends_at_home_and_is_replaced(space: Space) -> None:
    space.create(deployment("web", "edge-a", 2))
    space.rolled_out("deployment/web")
    before = space.wait_one_to_one(2)
    victim = min(before)
    here = Recorder(space.home, "Pod", space.name)
    space.peer.delete("Pod", space.remote, victim, grace_s=0)
    failed = eventually("it has failed at home", lambda: _in_phase(space, victim, "Failed"))
    assert failed["status"]["reason"] == names.REMOTE_POD_LOST
    assert failed["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 137
    assert condition(failed, "Ready")["status"] == "False"
    eventually("another is Ready", lambda: sum(map(is_ready, space.pods().values())) == 2)
    space.settle()
    assert victim not in space.mirrors()  # it ran, and does not run again
    phases = [item["status"]["phase"] for _, item in here.stop() if uid(item) == uid(before[victim])]
    assert phases == ["Failed"]  # told once


def test_a_mirror_deleted_gracefully_at_the_peer_tells_how_it_ended(space: Space) -> None:
    space.create(pod("ended", "edge-a", annotations=_slow(1)))
    space.wait_ready("ended")
    space.peer.plane.kubectl("-n", space.remote, "delete", "pod", "ended")
    failed = eventually("it has failed at home", lambda: _in_phase(space, "ended", "Failed"))
    assert failed["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 143
    assert space.mirror("ended") is None


def test_a_mirror_evicted_by_the_peers_kubelet_says_so_at_home(space: Space) -> None:
    space.create(deployment("web", "edge-a", 1))
    space.rolled_out("deployment/web")
    (victim,) = space.wait_one_to_one(1)
    target = {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet", "message": "memory"}
    status = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}
    unready = {"type": "Ready", "status": "False", "reason": "PodFailed"}
    space.peer.patch_status("Pod", space.remote, victim, {**status, "conditions": [target, unready]})
    evicted = eventually("it has failed at home", lambda: _in_phase(space, victim, "Failed"))
    assert status.items() <= evicted["status"].items()
    assert condition(evicted, "DisruptionTarget")["reason"] == "TerminationByKubelet"
    eventually("another is Ready", lambda: sum(map(is_ready, space.pods().values())) == 1)
    assert "Evicted" in space.kubectl("get", "pods")


def test_a_remote_namespace_deleted_at_the_peer_is_made_anew_for_new_pods(space: Space) -> None:
    space.create(deployment("web", "edge-a", 3))
    space.rolled_out("deployment/web")
    before = space.wait_one_to_one(3)
    first = uid(space.peer.get("Namespace", "", space.remote))
    space.peer.delete("Namespace", "", space.remote)
    eventually("it is gone", lambda: first != uid(space.peer.find("Namespace", "", space.remote) or _NOTHING), 60)

    def replaced() -> bool:
        ready = {uid(item) for item in space.pods().values() if is_ready(item)}
        return len(ready) == 3 and not ready & set(uids(before).values())

    eventually("three others are Ready", replaced, 60)


_NOTHING = {"metadata": {"uid": ""}}


def _leaving(item: Json | None) -> Json | None:
    return item if item and "deletionTimestamp" in item["metadata"] else None


def _grace(item: Json | None) -> int | None:
    return item["metadata"].get("deletionGracePeriodSeconds") if item else None


def _in_phase(space: Space, name: str, phase: str) -> Json | None:
    item = space.pod(name)
    return item if item and item["status"]["phase"] == phase else None


def _budget(space: Space) -> Json:
    return space.home.get("PodDisruptionBudget", space.name, "web").get("status") or {}
