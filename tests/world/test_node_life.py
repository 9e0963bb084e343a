"""A virtual Node as the whole of vnode keeps it: Ready once it serves and not before, back when somebody deletes it."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.expect import eventually
from tests.world.api import Api, Json, Recorder
from tests.world.kubelet_port import ask, connect
from tests.world.manifests import pod
from tests.world.vnodes import Space, Vnode, condition, is_ready, peer_config, uid
from vnode import names
from vnode.devcluster.cluster import Cluster

NODE = "edge-life"


def seen(node: Json) -> Json:
    """What a Node says of itself, and whether its port answers at that moment."""
    ready = condition(node, "Ready")
    port = node["status"].get("daemonEndpoints", {}).get("kubeletEndpoint", {}).get("Port", 0)
    answers = False
    with contextlib.suppress(OSError), contextlib.closing(connect("127.0.0.1", port, None, Path())) as connection:
        answers = ask(connection, "/healthz") == (401, "Unauthorized")
    return {"ready": (ready.get("status"), ready.get("reason")), "answers": answers}


@pytest.fixture(scope="module")
def history(home: Cluster, peer_a: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Json]]:
    """All that a Node was from the start of its vnode on, which goes on running."""
    api = Api(home.plane)
    recorder = Recorder(api, "Node", labels=f"{names.PEER}={NODE}", keep=seen)
    process = Vnode(tmp_path_factory.mktemp("vnode-life"), home, [peer_config(NODE, peer_a)]).start()
    try:
        process.wait_ready()
        yield [node for _, node in recorder.stop()]
    finally:
        process.stop()
        api.delete("Node", "", NODE)


@pytest.fixture
def space(peer_a: Cluster, new_space: Callable[..., Space]) -> Space:
    made: Space = new_space(peer_a, NODE)
    return made


def test_a_node_is_ready_once_it_serves_and_not_before(history: list[Json]) -> None:
    assert history[0]["ready"] == ("False", names.VNODE_STARTING)
    assert history[-1]["ready"] == ("True", names.VNODE_READY)
    assert all(node["answers"] for node in history if node["ready"][0] == "True")


@pytest.mark.usefixtures("history")
def test_a_node_deleted_by_hand_comes_back_and_its_pods_stay(home: Cluster, space: Space) -> None:
    api = Api(home.plane)
    space.create(pod("web", NODE))
    before, mirror, node = space.wait_ready("web")["web"], space.mirror("web"), api.get("Node", "", NODE)
    api.delete("Node", "", NODE)

    def back() -> bool:
        now = api.get("Node", "", NODE)
        return uid(now) != uid(node) and condition(now, "Ready")["status"] == "True"

    eventually("the Node is there again", lambda: api.find("Node", "", NODE) and back(), 5)
    lease = eventually("its Lease is the new Node's", lambda: api.find("Lease", "kube-node-lease", NODE))
    assert lease["spec"]["holderIdentity"] == NODE
    space.settle()
    after, mirror_after = space.pod("web"), space.mirror("web")
    assert mirror is not None
    assert mirror_after is not None
    assert is_ready(after)
    assert (uid(after or {}), uid(mirror_after)) == (uid(before), uid(mirror))
    assert (after or {})["status"]["startTime"] == before["status"]["startTime"]
