"""What happens to a mirror is told at home, on the Pod, where `kubectl describe` looks."""

from tests.expect import eventually
from tests.world.api import Json
from tests.world.manifests import bound
from tests.world.vnodes import Space

NOWHERE: Json = {"nodeSelector": {"kubernetes.io/os": "windows"}}


def test_why_the_peers_scheduler_cannot_place_a_mirror_is_told_on_the_home_pod(space: Space) -> None:
    space.create(bound("picky", "edge-a", **NOWHERE))
    event = eventually("home tells it", lambda: _event(space, "picky", "FailedScheduling"))
    assert "nodes are available" in event["message"]
    assert event["type"] == "Warning"
    assert event["reportingInstance"] == "edge-a"
    assert event["involvedObject"]["uid"] == space.home.get("Pod", space.name, "picky")["metadata"]["uid"]
    assert "FailedScheduling" in space.kubectl("describe", "pod", "picky")


def test_what_the_peers_kubelet_says_is_counted_and_not_repeated(space: Space) -> None:
    space.create(bound("picky", "edge-a", **NOWHERE))
    mirror = eventually("its mirror is there", lambda: space.mirror("picky"))
    involved = {"kind": "Pod", "namespace": space.remote, "name": "picky", "uid": mirror["metadata"]["uid"]}
    said: Json = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "picky.backoff", "namespace": space.remote},
        "involvedObject": involved,
        "type": "Warning",
        "reason": "BackOff",
        "message": "back-off restarting failed container",
        "source": {"component": "kubelet", "host": "peer-node"},
        "firstTimestamp": "2026-05-01T12:00:00Z",
        "lastTimestamp": "2026-05-01T12:00:00Z",
        "count": 1,
    }
    space.peer.create(said)
    eventually("it is told", lambda: _event(space, "picky", "BackOff"))
    space.peer.patch("Event", space.remote, "picky.backoff", {"count": 5, "lastTimestamp": "2026-05-01T12:05:00Z"})
    eventually("it is counted", lambda: _event(space, "picky", "BackOff").get("count") == 5)
    assert [event["reason"] for event in space.home.list("Event", space.name)].count("BackOff") == 1


def _event(space: Space, pod: str, reason: str) -> Json:
    found = [
        event
        for event in space.home.list("Event", space.name)
        if event["reason"] == reason and event["involvedObject"]["name"] == pod
    ]
    return found[0] if found else {}
