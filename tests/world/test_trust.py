"""What is not ours is not touched, shown or copied: others' Nodes, Pods, Secrets; and what claims to be ours."""

from collections.abc import Callable

from tests.expect import eventually
from tests.world.manifests import bound, pod, secret
from tests.world.vnodes import Space, Vnode, origin_uid, peer_config, uid
from vnode import names
from vnode.devcluster.cluster import Cluster


def test_pods_of_a_real_node_whose_name_a_peer_has_are_left_alone(
    home: Cluster, peer_a: Cluster, own_vnode: Callable[..., Vnode], new_space: Callable[..., Space]
) -> None:
    node = next(item for item in home.plane.kubectl("get", "nodes", "-o", "name").stdout.split() if "home" in item)
    name = node.removeprefix("node/")
    space = new_space(peer_a, name)
    space.create(bound("theirs", name))
    space.wait_ready("theirs")
    before = space.pod("theirs")
    vnode = own_vnode(peer_config(name, peer_a), flags=()).start()
    vnode.nodes.clear()  # the Node is not vnode's: the fixture must not remove it
    eventually("vnode says whose it is", lambda: "node name taken" in vnode.log, 60)
    status, text = vnode.admin("/readyz")
    assert status == 503
    assert name in text
    space.kubectl("label", "pod", "theirs", "seen=yes")
    eventually("vnode has heard of it", lambda: vnode.metric("vnode_pods_pods", peer=name, side="home") >= 1)
    after = space.pod("theirs")
    assert before is not None
    assert after is not None
    assert after["status"] == before["status"]
    assert not space.mirrors()


def test_logs_of_a_pod_without_a_mirror_do_not_come_from_whoever_has_its_place(space: Space) -> None:
    space.create(pod("first", space.node))  # makes the namespace
    space.wait_ready("first")
    stranger = pod("db", "none")
    stranger["spec"] = {"containers": [{"name": "main", "image": "simulated:1"}]}
    space.peer.create(stranger, space.remote)
    space.create(bound("db", space.node))
    space.wait_refused("db", names.REMOTE_NAME_TAKEN)
    eventually("the stranger runs", lambda: (space.mirror("db") or {})["status"]["phase"] == "Running")
    said = space.home.plane.kubectl("-n", space.name, "logs", "db", check=False)
    assert said.returncode != 0
    assert "waiting to start" in said.stderr
    assert "labels" not in (space.mirror("db") or {})["metadata"]


def test_no_secret_leaves_a_namespace_that_is_not_offloaded(
    peer_b: Cluster, vnode: Vnode, new_space: Callable[..., Space]
) -> None:
    assert "edge-b" in vnode.nodes
    space = new_space(peer_b, "edge-b", labels={"vnode.test/stay": "yes"})
    space.create(secret("key", {"k": "1"}))
    environment = [{"secretRef": {"name": "key"}}]
    container = {"name": "main", "image": "simulated:1", "envFrom": environment}
    space.create(bound("stays", "edge-b", containers=[container]))
    space.wait_refused("stays", names.NAMESPACE_NOT_OFFLOADED)
    space.home.patch("Secret", space.name, "key", {"stringData": {"k": "2"}})
    settled = new_space(peer_b, "edge-b")
    settled.settle()
    assert space.peer.find("Namespace", "", space.remote) is None


def test_a_mirror_that_loses_its_labels_gets_them_back(space: Space) -> None:
    space.create(pod("web", space.node))
    space.wait_ready("web")
    before = space.mirror("web")
    assert before is not None
    space.peer.patch("Pod", space.remote, "web", {"metadata": {"labels": {names.ORIGIN_NODE: None}}})
    eventually("the label is back", lambda: space.mirrors(f"{names.ORIGIN_NODE}={space.node}"))
    mirror, local = space.mirror("web"), space.pod("web")
    assert mirror is not None
    assert local is not None
    assert uid(mirror) == uid(before)
    assert local["status"]["phase"] == "Running"


def test_a_copy_of_a_mirror_is_removed_and_the_mirror_stays(space: Space) -> None:
    space.create(pod("web", space.node))
    space.wait_ready("web")
    mirror = space.mirror("web")
    assert mirror is not None
    space.peer.create({"kind": "Namespace", "metadata": {"name": f"{space.remote}-copy"}})
    copied = {key: mirror["metadata"][key] for key in ("labels", "annotations")} | {"name": "web"}
    spec = {"containers": [{"name": "main", "image": "simulated:1"}]}
    eventually("the namespace takes Pods", lambda: space.peer.find("ServiceAccount", f"{space.remote}-copy", "default"))
    space.peer.create({"kind": "Pod", "metadata": copied, "spec": spec}, f"{space.remote}-copy")
    eventually("the copy is gone", lambda: space.peer.find("Pod", f"{space.remote}-copy", "web") is None)
    space.peer.delete("Namespace", "", f"{space.remote}-copy")
    after, local = space.mirror("web"), space.pod("web")
    assert after is not None
    assert local is not None
    assert (uid(after), origin_uid(after)) == (uid(mirror), uid(local))
    assert local["status"]["phase"] == "Running"
