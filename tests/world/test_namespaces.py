"""Home namespaces and their names at the peers: three ways to map, what is refused, what goes with them."""

from collections.abc import Callable

from tests.expect import eventually
from tests.world.api import Api, Json
from tests.world.manifests import bound, config_map, deployment, pod, secret
from tests.world.test_references import ENV
from tests.world.vnodes import CLUSTER, Space, Vnode, origin_uid, uid
from vnode import names
from vnode.devcluster.cluster import Cluster

NewSpace = Callable[..., Space]


def test_two_peers_hold_a_namespace_under_their_own_names(
    vnode: Vnode, peer_a: Cluster, peer_b: Cluster, new_space: NewSpace
) -> None:
    one = new_space(peer_a, "edge-a", name="world-shop")
    other = Space(one.home, Api(peer_b.plane), one.name, "edge-b")
    other.remote = "store"
    one.create(pod("at-a", "edge-a"), pod("at-b", "edge-b"))
    one.wait_ready("at-a", "at-b")
    for space, name in ((one, "at-a"), (other, "at-b")):  # by template, and by explicit pair
        assert set(space.mirrors()) == {name}
        marks = space.peer.get("Namespace", "", space.remote)["metadata"]
        assert marks["labels"][names.ORIGIN] == CLUSTER
        assert marks["annotations"][names.ORIGIN_NAMESPACE] == "world-shop"
    one.home.delete("Namespace", "", one.name)
    for space in (one, other):
        space.wait_remote_namespace_leaves()


def test_long_names_are_shortened_and_do_not_meet(vnode: Vnode, peer_a: Cluster, new_space: NewSpace) -> None:
    long = "world-" + "x" * 56
    spaces = [new_space(peer_a, "edge-a", name=f"{long}{end}") for end in "ab"]
    for space in spaces:
        space.create(pod("same", "edge-a"))
        space.wait_ready("same")
    made: dict[str, Json] = {}
    for space in spaces:
        (mirror,) = [
            item
            for item in space.peer.list("Pod", labels=names.ORIGIN)
            if origin_uid(item) == uid(space.pods()["same"])
        ]
        made[mirror["metadata"]["namespace"]] = mirror
    assert len(made) == 2
    assert all(len(name) == 63 and name.startswith("world-xxxx") for name in made)


def test_a_remote_namespace_that_is_not_ours_is_refused_until_it_goes(space: Space) -> None:
    space.peer.create({"kind": "Namespace", "metadata": {"name": space.remote, "labels": {"whose": "theirs"}}})
    space.create(pod("guest", "edge-a"))
    message = space.wait_refused("guest", names.REMOTE_NAMESPACE_TAKEN)
    assert space.remote in message
    assert not space.mirrors()
    assert space.peer.get("Namespace", "", space.remote)["metadata"]["labels"]["whose"] == "theirs"
    space.peer.delete("Namespace", "", space.remote)
    space.wait_ready("guest")
    assert space.condition("guest", names.REMOTE_CONDITION) == {}


def test_a_namespace_of_ours_for_another_home_namespace_is_refused(space: Space) -> None:
    node = space.home.get("Node", "", "edge-a")["metadata"]["annotations"]
    labels = {names.ORIGIN: CLUSTER, names.ORIGIN_CLUSTER_UID: node[names.CLUSTER_UID], names.ORIGIN_NODE: "edge-a"}
    marks = {"name": space.remote, "labels": labels, "annotations": {names.ORIGIN_NAMESPACE: "default"}}
    space.peer.create({"kind": "Namespace", "metadata": marks})
    space.create(pod("guest", "edge-a"))
    space.wait_refused("guest", names.REMOTE_NAMESPACE_TAKEN)
    space.peer.delete("Namespace", "", space.remote)


def test_a_remote_pod_a_config_map_and_a_secret_of_others_are_left_alone(space: Space) -> None:
    space.create(pod("first", "edge-a"))
    space.wait_ready("first")
    foreign = {"containers": [{"name": "theirs", "image": "theirs"}]}
    theirs = space.peer.create({"kind": "Pod", "metadata": {"name": "taken"}, "spec": foreign}, space.remote)
    settings = space.peer.create(config_map("settings", {"whose": "theirs"}), space.remote)
    keys = space.peer.create(secret("keys", {"whose": "theirs"}), space.remote)
    space.create(pod("taken", "edge-a"), config_map("settings", {"whose": "ours"}), pod("user", "edge-a", **ENV))
    mount: Json = {"volumes": [{"name": "keys", "secret": {"secretName": "keys"}}]}
    space.create(secret("keys", {"whose": "ours"}), pod("keeper", "edge-a", **mount))
    assert f"Secret {space.remote}/keys" in space.wait_refused("keeper", names.REMOTE_NAME_TAKEN)
    assert f"ConfigMap {space.remote}/settings" in space.wait_refused("user", names.REMOTE_NAME_TAKEN)
    space.wait_refused("taken", names.REMOTE_NAME_TAKEN)
    space.kubectl("delete", "pod", "taken", "user", "keeper")
    space.settle()
    assert uid(space.mirrors()["taken"]) == uid(theirs)
    assert "deletionTimestamp" not in space.mirrors()["taken"]["metadata"]
    kept = space.peer.get("ConfigMap", space.remote, "settings")
    assert (uid(kept), kept["data"]) == (uid(settings), {"whose": "theirs"})
    kept = space.peer.get("Secret", space.remote, "keys")
    assert (uid(kept), kept["data"]) == (uid(keys), {"whose": "dGhlaXJz"})


def test_a_name_that_becomes_free_at_the_peer_is_taken(space: Space) -> None:
    space.create(pod("first", "edge-a"))
    space.wait_ready("first")
    foreign = {"containers": [{"name": "theirs", "image": "theirs"}]}
    space.peer.create({"kind": "Pod", "metadata": {"name": "taken"}, "spec": foreign}, space.remote)
    space.create(pod("taken", "edge-a"))
    space.wait_refused("taken", names.REMOTE_NAME_TAKEN)
    space.peer.delete("Pod", space.remote, "taken", grace_s=0)
    mine = space.wait_ready("taken")["taken"]
    assert origin_uid(space.mirrors()["taken"]) == uid(mine)


def test_namespaces_of_the_system_stay_home(space: Space) -> None:
    system = Space(space.home, space.peer, "kube-system", "edge-a")
    system.create(bound("world-system", "edge-a"))
    system.wait_refused("world-system", names.NAMESPACE_NOT_OFFLOADED)
    assert system.peer.find("Namespace", "", f"kube-system-{CLUSTER}") is None
    system.home.delete("Pod", "kube-system", "world-system")
    eventually("it goes like any Pod", lambda: system.pod("world-system") is None)


def test_a_selector_says_which_namespaces_may_offload(vnode: Vnode, peer_b: Cluster, new_space: NewSpace) -> None:
    space = new_space(peer_b, "edge-b", labels={"vnode.test/stay": "yes"})
    space.create(pod("waiting", "edge-b"))
    space.wait_refused("waiting", names.NAMESPACE_NOT_OFFLOADED)
    assert space.peer.find("Namespace", "", space.remote) is None
    space.home.patch("Namespace", "", space.name, {"metadata": {"labels": {"vnode.test/stay": None}}})
    space.wait_ready("waiting")


def test_a_deleted_home_namespace_takes_everything_at_the_peer_with_it(space: Space) -> None:
    space.create(config_map("settings", {"a": "b"}), deployment("web", "edge-a", 3, **ENV))
    space.rolled_out("deployment/web")
    space.kubectl("delete", "namespace", space.name, "--timeout=60s")
    space.wait_remote_namespace_leaves()
    eventually("no mirror is left", lambda: not space.mirrors())


def test_a_namespace_handed_over_is_used_and_survives_its_home_namespace(space: Space) -> None:
    node = space.home.get("Node", "", "edge-a")["metadata"]["annotations"]
    labels = {names.ORIGIN: CLUSTER, names.ORIGIN_CLUSTER_UID: node[names.CLUSTER_UID], names.ORIGIN_NODE: "edge-a"}
    marks = {"name": space.remote, "labels": labels, "annotations": {names.ORIGIN_NAMESPACE: space.name}}
    space.peer.create({"kind": "Namespace", "metadata": marks})
    space.peer.create(config_map("theirs", {"whose": "theirs"}), space.remote)
    space.create(config_map("settings", {"a": "b"}), pod("guest", "edge-a", **ENV))
    space.wait_ready("guest")
    space.kubectl("delete", "namespace", space.name, "--timeout=60s")
    eventually("ours has gone", lambda: not space.mirrors())
    eventually("our copy too", lambda: space.peer.find("ConfigMap", space.remote, "settings") is None)
    assert "deletionTimestamp" not in space.peer.get("Namespace", "", space.remote)["metadata"]
    assert space.peer.get("ConfigMap", space.remote, "theirs")["data"] == {"whose": "theirs"}
    space.peer.delete("Namespace", "", space.remote)


def test_a_remote_namespace_with_others_pods_in_it_is_left(space: Space) -> None:
    space.create(pod("ours", "edge-a"))
    space.wait_ready("ours")
    foreign = {"containers": [{"name": "theirs", "image": "theirs"}]}
    space.peer.create({"kind": "Pod", "metadata": {"name": "theirs"}, "spec": foreign}, space.remote)
    space.kubectl("delete", "namespace", space.name, "--timeout=60s")
    eventually("only theirs is left", lambda: set(space.mirrors()) == {"theirs"})
    assert "deletionTimestamp" not in space.peer.get("Namespace", "", space.remote)["metadata"]
    space.peer.delete("Namespace", "", space.remote)
