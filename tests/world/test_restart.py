"""vnode stopped, killed and started again: nothing is lost, doubled or begun anew."""

from collections.abc import Callable

import pytest

from tests.expect import eventually
from tests.world.api import Json, Recorder
from tests.world.manifests import deployment, job, pod
from tests.world.vnodes import Space, Vnode, origin_uid, peer_config, uid, uids
from vnode.devcluster.cluster import Cluster

BURST = 120


@pytest.fixture
def alone(own_vnode: Callable[..., Vnode], peer_a: Cluster, request: pytest.FixtureRequest) -> Vnode:
    """A vnode of one's own with one node, started."""
    made: Vnode = own_vnode(peer_config(f"solo-{abs(hash(request.node.name)) % 10**6}", peer_a))
    return made.start().wait_ready()


@pytest.fixture
def place(alone: Vnode, peer_a: Cluster, new_space: Callable[..., Space]) -> Space:
    """A namespace whose Pods run at peer-a through that vnode."""
    made: Space = new_space(peer_a, alone.nodes[0])
    return made


def test_killed_in_mid_burst_it_loses_doubles_and_begins_nothing_anew(alone: Vnode, place: Space) -> None:
    there = Recorder(place.peer, "Pod", place.remote)
    place.create(deployment("burst", place.node, BURST))
    eventually("the burst is at its height", lambda: len(place.mirrors()) >= BURST // 5)
    alone.kill()
    made_before = uids(place.mirrors())
    bound_before = uids(place.pods())
    alone.start().wait_ready()
    place.rolled_out("deployment/burst")
    after = place.wait_one_to_one(BURST, limit_s=90)
    assert bound_before.items() <= uids(after).items()
    assert made_before.items() <= uids(place.mirrors()).items()
    events = there.stop()
    added = [origin_uid(item) for what, item in events if what == "ADDED"]
    assert len(added) == len(set(added)) == BURST
    assert not [item for what, item in events if what == "DELETED"]


def test_a_restart_at_rest_writes_nothing_to_pods(alone: Vnode, place: Space) -> None:
    place.create(deployment("web", place.node, 5), job("done", place.node))
    place.rolled_out("deployment/web")
    place.kubectl("wait", "job/done", "--for=condition=Complete", "--timeout=60s")
    place.wait_one_to_one(6)
    before = (place.pods(), place.mirrors())
    alone.kill()
    alone.start().wait_ready()
    place.settle()
    assert _versions(place.pods()) == _versions(before[0])
    assert _versions(place.mirrors()) == _versions(before[1])


def test_what_happened_at_home_meanwhile_is_put_right(alone: Vnode, place: Space) -> None:
    place.create(*(pod(name, place.node) for name in ("stays", "goes", "forced", "again", "edited")))
    old = place.wait_ready("stays", "goes", "forced", "again", "edited")
    mirrors = place.mirrors()
    alone.kill()
    place.home.delete("Pod", place.name, "goes")
    place.home.delete("Pod", place.name, "forced", grace_s=0)
    place.home.delete("Pod", place.name, "again", grace_s=0)
    place.create(pod("again", place.node), pod("new", place.node))
    place.home.patch("Pod", place.name, "edited", {"metadata": {"labels": {"look": "here"}}})
    alone.start().wait_ready()
    place.wait_ready("stays", "again", "edited", "new")
    eventually("the deleted one is gone", lambda: place.pod("goes") is None)
    now = place.wait_one_to_one(4)
    assert set(now) == {"stays", "again", "edited", "new"}
    there = place.mirrors()
    assert uid(there["stays"]) == uid(mirrors["stays"])
    assert uid(there["edited"]) == uid(mirrors["edited"])
    assert uid(there["again"]) != uid(mirrors["again"])
    assert uid(now["again"]) != uid(old["again"])
    eventually("the edit has arrived", lambda: place.mirrors()["edited"]["metadata"]["labels"].get("look") == "here")


def test_what_happened_at_the_peer_meanwhile_is_told_at_home(alone: Vnode, place: Space) -> None:
    place.create(pod("lost", place.node), pod("ended", place.node, annotations={"kwok.test/stop-after": "0s"}))
    before = place.wait_ready("lost", "ended")
    there = Recorder(place.peer, "Pod", place.remote)
    alone.kill()
    place.peer.delete("Pod", place.remote, "lost", grace_s=0)
    failure = {"phase": "Failed", "reason": "Evicted", "message": "disk"}
    place.peer.patch_status("Pod", place.remote, "ended", failure)
    alone.start().wait_ready()
    lost = eventually("one is told to be lost", lambda: _failed(place.pod("lost")))
    ended = eventually("the other is told to have failed", lambda: _failed(place.pod("ended")))
    assert lost["status"]["reason"] == "RemotePodLost"
    assert ended["status"]["reason"] == "Evicted"
    place.settle()
    assert not {origin_uid(item) for what, item in there.stop() if what == "ADDED"} & set(uids(before).values())


def test_completed_pods_stay_completed_over_restarts_without_their_mirrors(alone: Vnode, place: Space) -> None:
    place.create(job("sum", place.node, spec={"completions": 3, "parallelism": 3}))
    place.kubectl("wait", "job/sum", "--for=condition=Complete", "--timeout=60s")
    before = place.pods()
    alone.kill()
    for name in place.mirrors():
        place.peer.delete("Pod", place.remote, name, grace_s=0)
    alone.start().wait_ready()
    place.settle()
    assert _versions(place.pods()) == _versions(before)
    assert not place.mirrors()


def test_a_home_namespace_deleted_meanwhile_goes_at_the_peer_too(alone: Vnode, place: Space) -> None:
    place.create(pod("guest", place.node))
    place.wait_ready("guest")
    alone.kill()
    place.home.delete("Pod", place.name, "guest", grace_s=0)
    place.kubectl("delete", "namespace", place.name, "--timeout=60s")
    assert set(place.mirrors()) == {"guest"}
    alone.start().wait_ready()
    place.wait_remote_namespace_leaves()
    eventually("the mirror is gone", lambda: not place.mirrors())


def test_sigterm_marks_the_node_and_leaves_the_mirrors(alone: Vnode, place: Space) -> None:
    place.create(deployment("web", place.node, 2))
    place.rolled_out("deployment/web")
    mirrors = uids(place.mirrors())
    alone.terminate(limit_s=20)
    ready = alone.ready(place.node)
    assert (ready["status"], ready["reason"]) == ("False", "VnodeStopped")
    assert uids(place.mirrors()) == mirrors
    alone.start().wait_ready()
    place.wait_one_to_one(2)
    assert uids(place.mirrors()) == mirrors


def _versions(items: dict[str, Json]) -> dict[str, str]:
    return {name: item["metadata"]["resourceVersion"] for name, item in items.items()}


def _failed(item: Json | None) -> Json | None:
    return item if item and item["status"]["phase"] == "Failed" else None
