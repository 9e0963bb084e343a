"""An apiserver that goes away and comes back: the Node says so, nothing is given up, all goes on by itself."""

from collections.abc import Callable

from tests.expect import eventually
from tests.world.manifests import deployment, pod
from tests.world.vnodes import Space, Vnode, is_ready, peer_config, uids
from vnode import names
from vnode.devcluster.cluster import Cluster

Make = Callable[..., Vnode]
NewSpace = Callable[..., Space]
PEER_AWAY_WITHIN_S = 25  # the aim is 15 s on an idle machine


def test_a_peer_that_is_away_is_told_and_what_was_deleted_meanwhile_is_released_after(
    own_vnode: Make, new_space: NewSpace, peer_b: Cluster
) -> None:
    alone = own_vnode(peer_config("island", peer_b)).start().wait_ready()
    space = new_space(peer_b, "island")
    space.create(pod("stays", "island"), pod("goes", "island"))
    before = space.wait_ready("stays", "goes")
    mirrors = uids(space.mirrors())
    peer_b.plane.kill("kube-apiserver")
    try:
        eventually("the Node says so", lambda: _unreachable(alone), PEER_AWAY_WITHIN_S)
        assert space.home.get("Lease", "kube-node-lease", "island")  # vnode itself lives
        space.kubectl("delete", "pod", "goes", "--wait=false")
        space.home.create(pod("new", "island", nodeName="island"), space.name)
        # Its containers run on over there, for all anybody knows: it must not be let go.
        eventually("vnode has looked at it", lambda: not is_ready(space.pod("stays")))
        assert "deletionTimestamp" in space.pods()["goes"]["metadata"]
    finally:
        peer_b.plane.start_component("kube-apiserver")
        peer_b.plane.wait_ready()
    alone.wait_ready()
    eventually("the deleted one is released", lambda: space.pod("goes") is None, 40)
    eventually("its mirror is gone", lambda: space.mirror("goes") is None)
    after = space.wait_ready("stays", "new")
    assert uids(after)["stays"] == uids(before)["stays"]
    assert uids(space.mirrors())["stays"] == mirrors["stays"]


def test_a_home_apiserver_that_was_restarted_is_taken_up_again(
    own_vnode: Make, new_space: NewSpace, peer_a: Cluster, home: Cluster
) -> None:
    alone = own_vnode(peer_config("orbit", peer_a)).start().wait_ready()
    space = new_space(peer_a, "orbit")
    space.create(deployment("web", "orbit", 3))
    space.rolled_out("deployment/web")
    before = uids(space.wait_one_to_one(3)), uids(space.mirrors())
    home.plane.restart_apiserver()
    home.plane.wait_ready()
    space.kubectl("scale", "deployment/web", "--replicas=5")
    space.rolled_out("deployment/web")
    pods = space.wait_one_to_one(5)
    assert before[0].items() <= uids(pods).items()
    assert before[1].items() <= uids(space.mirrors()).items()
    alone.wait_ready()
    assert alone.metric("vnode_runtime_bugs_total") == 0


def _unreachable(vnode: Vnode) -> bool:
    ready = vnode.ready(vnode.nodes[0])
    return (ready["status"], ready["reason"]) == ("False", names.PEER_UNREACHABLE)
