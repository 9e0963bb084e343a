"""Deployments, StatefulSets, DaemonSets and bare Pods through a virtual node, as their users see them."""

import json

from tests.expect import eventually
from tests.world.api import Recorder
from tests.world.manifests import deployment, pod, stateful_set, template
from tests.world.vnodes import Space, Vnode, condition, is_ready, origin_uid, uid, uids

SLOW_STOP = {"kwok.test/stop-after": "1s"}


def test_a_deployment_runs_at_the_peer_is_scaled_and_deleted(space: Space) -> None:
    space.create(deployment("web", "edge-a", 3))
    space.rolled_out("deployment/web")
    three = space.wait_one_to_one(3)
    assert {item["spec"]["nodeName"] for item in three.values()} == {"edge-a"}
    assert {item["spec"]["nodeName"] for item in space.mirrors().values()} <= {"peer-a-0", "peer-a-1"}

    space.kubectl("scale", "deployment/web", "--replicas=6")
    space.rolled_out("deployment/web")
    six = space.wait_one_to_one(6)
    assert uids(three).items() <= uids(six).items()

    space.kubectl("scale", "deployment/web", "--replicas=2")
    two = space.wait_one_to_one(2)
    assert uids(two).items() <= uids(six).items()
    assert all(map(is_ready, two.values()))

    space.kubectl("delete", "deployment/web", "--wait=true")
    space.wait_gone()


def test_a_rolling_update_replaces_all_pods_without_a_gap(space: Space) -> None:
    rolling = {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    space.create(deployment("web", "edge-a", 3, strategy=rolling))
    space.rolled_out("deployment/web")
    old = space.wait_one_to_one(3)
    recorder = Recorder(space.home, "Deployment", space.name)
    space.kubectl("set", "image", "deployment/web", "main=simulated:2")
    space.rolled_out("deployment/web")
    new = space.wait_one_to_one(3)
    assert not set(uids(new).values()) & set(uids(old).values())
    for item in (*new.values(), *space.mirrors().values()):
        assert item["spec"]["containers"][0]["image"] == "simulated:2"
    available = [item["status"].get("availableReplicas", 0) for _, item in recorder.stop()]
    assert min(available) >= 3


def test_a_bad_image_at_the_peer_shows_at_home_and_undo_heals(space: Space) -> None:
    space.create(deployment("web", "edge-a", 1))
    space.rolled_out("deployment/web")
    slow = {"spec": {"template": {"metadata": {"annotations": {"kwok.test/ready-after": "300s"}}}}}
    space.home.patch("Deployment", space.name, "web", slow)
    eventually("the new Pod has a mirror", lambda: len(space.mirrors()) == 2)
    waiting = next(name for name, item in space.mirrors().items() if item["status"]["phase"] == "Pending")
    # What a kubelet says that cannot pull the image.
    state = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}
    status = {"name": "main", "image": "simulated:1", "imageID": "", "ready": False, "restartCount": 0, "state": state}
    space.peer.patch_status("Pod", space.remote, waiting, {"containerStatuses": [status]})
    eventually("kubectl get pods shows it", lambda: "ImagePullBackOff" in space.kubectl("get", "pods"))
    space.kubectl("rollout", "undo", "deployment/web")
    space.rolled_out("deployment/web")
    space.wait_one_to_one(1)


def test_a_stateful_set_comes_up_in_order(space: Space) -> None:
    space.create(stateful_set("db", "edge-a", 3, annotations={"kwok.test/ready-after": "1s"}))
    space.rolled_out("statefulset/db")
    pods = space.wait_one_to_one(3)
    assert set(pods) == {"db-0", "db-1", "db-2"}
    for before, after in (("db-0", "db-1"), ("db-1", "db-2")):
        ready_at = condition(pods[before], "Ready")["lastTransitionTime"]
        assert ready_at <= pods[after]["metadata"]["creationTimestamp"]


def test_a_restarted_stateful_set_keeps_names_and_no_mirror_meets_its_successor(space: Space) -> None:
    space.create(stateful_set("db", "edge-a", 3, annotations=SLOW_STOP))
    space.rolled_out("statefulset/db")
    old = space.wait_one_to_one(3)
    here = Recorder(space.home, "Pod", space.name)
    there = Recorder(space.peer, "Pod", space.remote)
    space.kubectl("rollout", "restart", "statefulset/db")
    space.rolled_out("statefulset/db")
    new = space.wait_one_to_one(3)
    assert set(new) == set(old)
    assert not set(uids(new).values()) & set(uids(old).values())
    home_events, peer_events = here.stop(), there.stop()
    for name in old:
        at_peer = [
            (what, origin_uid(item))
            for what, item in peer_events
            if item["metadata"]["name"] == name and what != "MODIFIED"
        ]
        assert at_peer == [("DELETED", uid(old[name])), ("ADDED", uid(new[name]))]
        # The old one was seen to end at home before it went: its mirror was stopped first.
        ended = [
            item["status"]["phase"]
            for what, item in home_events
            if uid(item) == uid(old[name]) and "deletionTimestamp" in item["metadata"]
        ]
        assert ended[-1] == "Failed"


def test_daemon_sets_of_home_stay_off(space: Space, vnode: Vnode) -> None:
    body = template("agent", "edge-a")
    for key in ("nodeSelector", "tolerations"):
        del body["spec"][key]
    spec = {"selector": {"matchLabels": {"app": "agent"}}, "template": body}
    space.create({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "agent"}, "spec": spec})
    space.rolled_out("daemonset/agent")
    nodes = {item["spec"]["nodeName"] for item in space.pods().values()}
    assert "home-0" in nodes
    assert not nodes & set(vnode.nodes)
    assert not space.mirrors()


def test_a_daemon_set_that_asks_for_it_runs_on_the_virtual_node(space: Space) -> None:
    spec = {"selector": {"matchLabels": {"app": "agent"}}, "template": template("agent", "edge-a")}
    space.create({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "agent"}, "spec": spec})
    space.rolled_out("daemonset/agent")
    (only,) = space.wait_one_to_one(1).values()
    assert only["spec"]["nodeName"] == "edge-a"


def test_a_bare_pod_shows_what_kubectl_users_expect(space: Space) -> None:
    space.create(pod("bare", "edge-a"))
    bare = space.wait_ready("bare")["bare"]
    row = space.kubectl("get", "pod", "bare", "-o", "wide").splitlines()[1].split()
    assert row[:4] == ["bare", "1/1", "Running", "0"]
    assert "edge-a" in row
    assert bare["status"]["hostIP"] == "127.0.0.1"
    assert "podIP" not in bare["status"]  # hidden: it would mean another Pod here
    assert "hello from a simulated container in peer-a" in space.kubectl("logs", "bare")


def test_pods_that_end_say_how(space: Space) -> None:
    space.create(
        pod("good", "edge-a", labels={"kwok.test/exit": "0"}, restartPolicy="Never"),
        pod("bad", "edge-a", labels={"kwok.test/exit": "3"}, restartPolicy="Never"),
        pod("again", "edge-a", labels={"kwok.test/exit": "0"}, restartPolicy="OnFailure"),
    )
    ends = {"good": ("Succeeded", 0), "bad": ("Failed", 3), "again": ("Succeeded", 0)}

    def ended() -> bool:
        for name, (phase, code) in ends.items():
            status = space.pods()[name]["status"]
            assert status["phase"] == phase
            assert status["containerStatuses"][0]["state"]["terminated"]["exitCode"] == code
            assert condition(space.pod(name), "Ready")["status"] == "False"
        return True

    eventually("all three have ended", ended)


def test_readiness_gates_are_judged_at_home(space: Space) -> None:
    space.create(pod("gated", "edge-a", readinessGates=[{"conditionType": "example.com/balanced"}]))

    def held_back() -> bool:
        return space.condition("gated", "Ready").get("reason") == "ReadinessGatesNotReady"

    eventually("the gate holds it back", held_back)
    assert space.condition("gated", "ContainersReady")["status"] == "True"
    assert is_ready(space.mirror("gated"))
    gate = {"type": "example.com/balanced", "status": "True"}
    space.home.patch_status("Pod", space.name, "gated", {"conditions": [gate]})
    space.wait_ready("gated")
    gate["status"] = "False"
    space.home.patch_status("Pod", space.name, "gated", {"conditions": [gate]})
    eventually("the gate holds it back again", held_back)
    assert space.condition("gated", "example.com/balanced")["status"] == "False"


def test_edits_reach_the_peer_and_are_observed(space: Space) -> None:
    space.create(pod("edited", "edge-a", labels={"old": "1"}, annotations={"note": "a"}))
    first = space.wait_ready("edited")["edited"]
    before = uid(space.mirrors()["edited"])
    change = {"metadata": {"labels": {"old": None, "new": "2"}, "annotations": {"note": "b"}}}
    space.home.patch("Pod", space.name, "edited", change)
    space.kubectl("set", "image", "pod/edited", "main=simulated:9")
    space.home.patch("Pod", space.name, "edited", {"spec": {"activeDeadlineSeconds": 3600}})

    def arrived() -> bool:
        mirror = space.mirrors()["edited"]
        assert mirror["spec"]["containers"][0]["image"] == "simulated:9"
        assert mirror["spec"]["activeDeadlineSeconds"] == 3600
        assert mirror["metadata"]["labels"].get("new") == "2"
        assert "old" not in mirror["metadata"]["labels"]
        assert mirror["metadata"]["annotations"]["note"] == "b"
        assert uid(mirror) == before
        return True

    eventually("the peer has all three edits", arrived)

    def observed() -> bool:
        item = space.pods()["edited"]
        assert item["metadata"]["generation"] == first["metadata"]["generation"] + 2
        return bool(item["status"]["observedGeneration"] == item["metadata"]["generation"])

    eventually("home's generation is observed", observed)


def test_conditions_of_others_and_the_spec_at_home_stay_as_they_are(space: Space) -> None:
    space.create(pod("mine", "edge-a"))
    spec = space.wait_ready("mine")["mine"]["spec"]
    theirs = {"type": "example.com/Mine", "status": "True", "reason": "Because", "message": "of me"}
    space.home.patch_status("Pod", space.name, "mine", {"conditions": [theirs]})
    space.kubectl("label", "pod", "mine", "look=again")
    eventually("the label arrives", lambda: space.mirrors()["mine"]["metadata"]["labels"].get("look"))
    space.settle()
    assert theirs.items() <= space.condition("mine", "example.com/Mine").items()
    assert json.dumps(space.pods()["mine"]["spec"]) == json.dumps(spec)
