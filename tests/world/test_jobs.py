"""Jobs and CronJobs through a virtual node: exit codes, retries, completion that stays."""

from datetime import UTC, datetime, timedelta

from tests.expect import eventually
from tests.world.api import Recorder
from tests.world.manifests import job
from tests.world.vnodes import Space, condition, origin_uid, uid, uids


def test_a_job_completes_and_its_pods_stay_completed(space: Space) -> None:
    space.create(job("sum", "edge-a", spec={"completions": 4, "parallelism": 2}))
    space.kubectl("wait", "job/sum", "--for=condition=Complete", "--timeout=60s")
    pods = space.pods()
    assert [item["status"]["phase"] for item in pods.values()] == ["Succeeded"] * 4
    terminated = [item["status"]["containerStatuses"][0]["state"]["terminated"] for item in pods.values()]
    assert all(state["exitCode"] == 0 and state["finishedAt"] for state in terminated)
    assert all(item["metadata"].get("finalizers") is None for item in pods.values())
    space.wait_one_to_one(4)


def test_completed_pods_stay_completed_when_their_mirrors_are_deleted_at_the_peer(space: Space) -> None:
    space.create(job("sum", "edge-a", spec={"completions": 2, "parallelism": 2}))
    space.kubectl("wait", "job/sum", "--for=condition=Complete", "--timeout=60s")
    before = space.pods()
    there = Recorder(space.peer, "Pod", space.remote)
    for name in space.mirrors():
        space.peer.delete("Pod", space.remote, name)
    eventually("the mirrors are gone", lambda: not space.mirrors())
    space.settle()
    after = space.pods()
    assert {name: item["status"] for name, item in after.items()} == {
        name: item["status"] for name, item in before.items()
    }
    assert uids(after) == uids(before)
    made = {origin_uid(item) for what, item in there.stop() if what == "ADDED"}
    assert not made & set(uids(before).values())


def test_a_failing_job_is_tried_again_as_often_as_it_may(space: Space) -> None:
    space.create(job("bad", "edge-a", exit_code="7", spec={"backoffLimit": 1}))
    space.kubectl("wait", "job/bad", "--for=condition=Failed", "--timeout=60s")
    assert condition(space.home.get("Job", space.name, "bad"), "Failed")["reason"] == "BackoffLimitExceeded"
    pods = space.pods()
    assert len(pods) == 2
    for item in pods.values():
        assert item["status"]["phase"] == "Failed"
        assert item["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 7


def test_a_failure_policy_sees_the_exit_code(space: Space) -> None:
    fail = {"action": "FailJob", "onExitCodes": {"containerName": "main", "operator": "In", "values": [42]}}
    space.create(
        job("strict", "edge-a", exit_code="42", spec={"backoffLimit": 6, "podFailurePolicy": {"rules": [fail]}})
    )
    space.kubectl("wait", "job/strict", "--for=condition=Failed", "--timeout=60s")
    assert condition(space.home.get("Job", space.name, "strict"), "Failed")["reason"] == "PodFailurePolicy"
    assert len(space.pods()) == 1


def test_a_disruption_at_the_peer_is_not_counted_by_a_policy_that_ignores_it(space: Space) -> None:
    ignore = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    spec = {"backoffLimit": 0, "podFailurePolicy": {"rules": [ignore]}}
    space.create(job("calm", "edge-a", exit_code="hold", spec=spec))
    (first,) = eventually("its Pod runs", lambda: [item for item in space.pods().values() if _runs(item)])
    space.peer.evict(space.remote, first["metadata"]["name"])  # as a drain of the peer's node does

    def replaced() -> bool:
        return any(_runs(item) and uid(item) != uid(first) for item in space.pods().values())

    eventually("another Pod has taken over", replaced, 60)
    evicted = space.pod(first["metadata"]["name"])
    assert evicted is None or condition(evicted, "DisruptionTarget")["status"] == "True"
    assert not condition(space.home.get("Job", space.name, "calm"), "Failed")
    for name in space.mirrors():
        space.peer.patch("Pod", space.remote, name, {"metadata": {"labels": {"kwok.test/exit": "0"}}})
    space.kubectl("wait", "job/calm", "--for=condition=Complete", "--timeout=60s")


def test_deleting_a_running_job_leaves_nothing(space: Space) -> None:
    space.create(job("long", "edge-a", exit_code="hold", spec={"completions": 3, "parallelism": 3}))
    eventually("its Pods run", lambda: [_runs(item) for item in space.pods().values()] == [True] * 3)
    space.kubectl("delete", "job", "long", "--wait=true")
    space.wait_gone()


def test_a_cron_job_makes_jobs_that_complete(space: Space) -> None:
    made = job("tick", "edge-a", spec={"backoffLimit": 0})
    spec = {"schedule": "* * * * *", "suspend": True, "jobTemplate": {"spec": made["spec"]}}
    space.create({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "tick"}, "spec": spec})
    earlier = (datetime.now(UTC) - timedelta(minutes=3)).strftime("%Y-%m-%dT%H:%M:%SZ")
    # It has missed some runs: the next is due at once, not at the full minute.
    space.home.patch_status("CronJob", space.name, "tick", {"lastScheduleTime": earlier})
    space.home.patch("CronJob", space.name, "tick", {"spec": {"suspend": False}})

    def complete() -> bool:
        jobs = space.home.list("Job", space.name)
        assert jobs, "no Job yet"
        return all(condition(item, "Complete").get("status") == "True" for item in jobs)

    eventually("a Job of it has completed", complete, 60)
    assert {item["status"]["phase"] for item in space.pods().values()} == {"Succeeded"}


def _runs(item: dict[str, dict[str, str]]) -> bool:
    return item["status"].get("phase") == "Running"
