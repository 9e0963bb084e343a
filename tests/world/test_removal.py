"""A virtual node taken out for good: drained at home, and nothing of ours left at the peer."""

from collections.abc import Callable

from tests.expect import eventually
from tests.world.manifests import config_map, deployment, pod, template
from tests.world.test_references import ENV
from tests.world.vnodes import Space, Vnode, is_ready, peer_config, run_cli
from vnode import names
from vnode.devcluster.cluster import Cluster

Make = Callable[..., Vnode]
NewSpace = Callable[..., Space]


def test_deregister_on_exit_drains_and_leaves_nothing(
    own_vnode: Make, new_space: NewSpace, peer_a: Cluster, vnode: Vnode
) -> None:
    alone = own_vnode(peer_config("leaver", peer_a), flags=("--deregister-on-exit",)).start().wait_ready()
    space = new_space(peer_a, "leaver")
    space.create(config_map("settings", {"a": "b"}), deployment("web", "leaver", 3, **ENV), pod("bare", "leaver"))
    space.rolled_out("deployment/web")
    space.wait_ready("bare")
    alone.terminate(limit_s=60)
    _nothing_left(space)
    # The Deployment's new Pods wait for a node, they are not lost.
    assert {item["status"]["phase"] for item in space.pods().values()} == {"Pending"}


def test_vnode_remove_drains_a_node_that_nobody_serves(own_vnode: Make, new_space: NewSpace, peer_a: Cluster) -> None:
    alone = own_vnode(peer_config("removed", peer_a)).start().wait_ready()
    space = new_space(peer_a, "removed")
    space.create(deployment("web", "removed", 3))
    space.rolled_out("deployment/web")
    alone.terminate()
    done = run_cli("remove", "removed", "--config", alone.config, "--kubeconfig", space.home.plane.kubeconfig)
    assert (done.returncode, done.stderr) == (0, "")
    assert "node removed: removed" in done.stdout
    _nothing_left(space)


def test_vnode_remove_honours_budgets_and_says_what_is_in_the_way(
    own_vnode: Make, new_space: NewSpace, peer_a: Cluster
) -> None:
    alone = own_vnode(peer_config("guarded", peer_a)).start().wait_ready()
    space = new_space(peer_a, "guarded")
    budget = {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}
    space.create(
        {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"}, "spec": budget},
        deployment("web", "guarded", 1),
    )
    space.rolled_out("deployment/web")
    before = space.wait_one_to_one(1)
    alone.terminate()
    arguments = ("remove", "guarded", "--config", alone.config, "--kubeconfig", space.home.plane.kubeconfig)
    done = run_cli(*arguments, "--timeout", "6")
    assert done.returncode == 1
    assert "disruption budget" in done.stderr
    assert "Traceback" not in done.stderr
    assert set(space.wait_one_to_one(1)) == set(before)
    space.home.delete("PodDisruptionBudget", space.name, "web")
    assert run_cli(*arguments).returncode == 0
    _nothing_left(space)


def test_a_daemon_set_whose_pods_come_back_at_once_does_not_hold_the_removal(
    own_vnode: Make, new_space: NewSpace, peer_a: Cluster
) -> None:
    alone = own_vnode(peer_config("daemons", peer_a)).start().wait_ready()
    space = new_space(peer_a, "daemons")
    spec = {"selector": {"matchLabels": {"app": "agent"}}, "template": template("agent", "daemons")}
    space.create({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "agent"}, "spec": spec})
    eventually("its Pod runs", lambda: [item for item in space.pods().values() if is_ready(item)])
    alone.terminate()
    arguments = ("remove", "daemons", "--config", alone.config, "--kubeconfig", space.home.plane.kubeconfig)
    done = run_cli(*arguments, "--timeout", "100", limit_s=120)
    assert (done.returncode, done.stderr) == (0, "")
    _nothing_left(space)


def test_vnode_remove_names_the_nodes_there_are(own_vnode: Make, peer_a: Cluster) -> None:
    alone = own_vnode(peer_config("known", peer_a))
    done = run_cli("remove", "stranger", "--config", alone.config)
    assert done.returncode == 2
    assert done.stderr == "vnode: no peer has a Node named stranger; configured: known\n"


def _nothing_left(space: Space) -> None:
    ours = f"{names.ORIGIN_NODE}={space.node}"
    assert space.home.find("Node", "", space.node) is None
    eventually("the Lease is gone", lambda: space.home.find("Lease", "kube-node-lease", space.node) is None)
    assert not space.peer.list("Pod", labels=ours)
    left = [item for item in space.peer.list("Namespace", labels=ours) if "deletionTimestamp" not in item["metadata"]]
    assert not left
    space.wait_remote_namespace_leaves()
    eventually("no copy is left", lambda: not space.peer.list("ConfigMap", labels=ours))
