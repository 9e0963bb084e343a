"""Peers as objects: a Secret and a Peer make a Node; what becomes of it shows in `kubectl get peers`."""

import json
import time
from collections.abc import Callable, Iterator

import pytest

from tests.expect import eventually
from tests.world.api import Json, Refusal
from tests.world.manifests import deployment, pod
from tests.world.peers import NAMESPACE, Account, Peers, Relay, install, peer
from tests.world.vnodes import REPO, Space, Vnode, run_cli, uids
from vnode import names
from vnode.devcluster.cluster import Cluster
from vnode.devcluster.errors import DevClusterError

NewSpace = Callable[..., Space]
REVOKED_WITHIN_S = 20  # the aim is 15 s on an idle machine: ten of them are the apiserver's own, its cache of tokens
ABANDON = {"metadata": {"annotations": {names.ABANDON_AFTER: "0s"}}}


@pytest.fixture(scope="module")
def vnode(home: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vnode]:
    """A vnode that serves Peer objects."""
    install(home, REPO / "deploy" / "base" / "crd.yaml")
    flags = ("--peer-objects", "--namespace", NAMESPACE)
    process = Vnode(tmp_path_factory.mktemp("vnode-peers"), home, [], *flags).start()
    yield process.wait_ready()
    process.stop()


@pytest.fixture
def peers(vnode: Vnode, home: Cluster) -> Iterator[Peers]:
    """Makes Peers, which are gone after the test."""
    assert vnode
    made = Peers(home)
    yield made
    made.clean()


def test_a_secret_and_a_peer_make_a_node_that_says_how_it_is_and_then_nothing_more(
    peers: Peers, peer_a: Cluster, new_space: NewSpace
) -> None:
    peers.create("join", Account(peer_a).kubeconfig(), node={"region": "north"})
    found = peers.wait_ready("join")
    assert peers.api.get("Node", "", "join")["metadata"]["labels"]["topology.kubernetes.io/region"] == "north"
    space = new_space(peer_a, "join")
    space.create(pod("runs", "join"))
    space.wait_ready("runs")
    status = eventually("Pods are counted", lambda: _counted(peers, "join"))
    assert status["nodeName"] == "join"
    assert status["peerVersion"].startswith("v1.")
    assert status["roundTrip"].endswith("ms")
    assert (status["namespaces"], status["problem"]) == ([space.name], "")
    assert {each["type"]: each["status"] for each in status["conditions"]} == {
        "Accepted": "True",
        "Reachable": "True",
        "Authorized": "True",
        "NodeReady": "True",
        "Draining": "False",
    }
    assert {each["observedGeneration"] for each in status["conditions"]} == {found["metadata"]["generation"]}
    head, line = peers.plane.kubectl("get", "peer", "join").stdout.splitlines()
    assert head.split() == ["NAME", "NODE", "READY", "PODS", "PENDING", "FAILING", "VERSION", "AGE", "PROBLEM"]
    assert line.split()[:4] == ["join", "join", "True", "1"]
    eventually("it is written no more", _rests(peers, "join"), 60)


def test_one_command_joins_a_peer_within_a_minute_and_one_has_it_leave(
    vnode: Vnode, peers: Peers, home: Cluster, peer_b: Cluster
) -> None:
    assert vnode
    both = ("--kubeconfig", home.plane.kubeconfig, "--peer-kubeconfig", peer_b.plane.kubeconfig)
    begun = time.monotonic()
    joined = run_cli("join", "whole", "--all", *both)
    assert joined.returncode == 0, joined.stderr
    peers.wait_ready("whole")
    assert time.monotonic() - begun < 60
    left = run_cli("leave", "whole", *both)
    assert left.returncode == 0, left.stderr
    assert peers.find("whole") is None
    assert peers.api.find("Node", "", "whole") is None
    assert peers.api.find("Secret", NAMESPACE, "vnode-peer-whole") is None


@pytest.mark.parametrize(
    ("name", "spec", "said"),
    [
        ("Upper", {}, "a lowercase RFC 1123"),
        ("dotted.name", {}, "the name of a Peer is a DNS-1123 label"),
        ("bad", {"secretRef": {"name": ""}}, "secretRef.name"),
        ("bad", {"secretRef": {"name": "x", "namespace": "kube-system"}}, 'unknown field "spec.secretRef.namespace"'),
        ("bad", {"node": {"labels": {"type": "mine"}}}, "expected no label that vnode itself sets"),
        ("bad", {"node": {"labels": {"a b": "c"}}}, "expected keys [domain/]name"),
        ("bad", {"node": {"zone": "a/b"}}, "spec.node.zone"),
        ("bad", {"node": {"taints": [{"key": "a", "effect": "Never"}]}}, "Unsupported value"),
        ("bad", {"node": {"taints": [{"key": "a", "effect": "NoExecute"}] * 2}}, "Duplicate value"),
        ("bad", {"namespaces": {"template": "shop"}}, "a DNS-1123 label with {namespace} once"),
        ("bad", {"namespaces": {"map": {"a": "x", "b": "x"}}}, "a remote namespace of its own"),
        (
            "bad",
            {"namespaces": {"selector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}},
            "expected at least one value for In and NotIn",
        ),
        ("bad", {"capacity": {"limits": {"cpu": "much"}}}, "spec.capacity.limits.cpu"),
        ("bad", {"capacity": {"limits": {"cpu": -1}}}, "greater than or equal to 0"),
        ("bad", {"capacity": {"limits": {"cpus": "1"}}}, "expected resources: cpu"),
        ("bad", {"network": {"podIPs": "maybe"}}, "Unsupported value"),
    ],
)
def test_the_apiserver_itself_refuses_a_bad_peer(peers: Peers, name: str, spec: dict[str, object], said: str) -> None:
    body = json.dumps({**peer(name), "spec": {"secretRef": {"name": "x"}, **spec}})
    with pytest.raises(DevClusterError) as refused:
        peers.plane.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", input=body)
    assert said in str(refused.value)


def test_the_apiserver_takes_what_a_configuration_file_may_say(peers: Peers) -> None:
    full = {
        "context": "main",
        "node": {
            "name": "edge.example",
            "labels": {"example.com/tier": "gold", "plain": ""},
            "taints": [{"key": "a", "effect": "NoExecute", "value": "x"}],
            "region": "north",
        },
        "namespaces": {
            "template": "{cluster}-{namespace}",
            "map": {"shop": "store"},
            "selector": {"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["b"]}]},
        },
        "capacity": {"limits": {"cpu": 4, "memory": "16Gi", "nvidia.com/gpu": "2"}, "nodeSelector": {"pool": "big"}},
        "network": {"podIPs": "flat"},
        "overrides": [
            {
                "images": [{"prefix": "docker.io/", "to": "mirror.edge:5000/"}],
                "containers": [{"env": {"A": "b"}, "resources": {"cap": {"cpu": 2}}}],
                "tolerations": [{"key": "gpu", "operator": "Exists"}],
                "patch": [{"op": "add", "path": "/spec/containers/0/env", "value": [{"name": "A", "value": "1"}]}],
            }
        ],
    }
    peers.api.create(peer("full", **full))
    try:
        message = peers.wait("full", "Accepted", "False", names.KUBECONFIG_ABSENT)
        assert message == f"Secret full, key kubeconfig: there is no such Secret in {NAMESPACE}"
        assert peers.api.get("Peer", "", "full")["spec"] == {"secretRef": {"name": "full"}, **full}
        with pytest.raises(Refusal, match=r"node\.name cannot be changed"):
            peers.api.patch("Peer", "", "full", {"spec": {"node": {"name": "other"}}})
    finally:
        peers.delete("full")
    peers.wait_gone("full", 10)  # nothing was begun for it


def test_what_cannot_be_used_is_told_and_mended_by_an_edit(peers: Peers, peer_a: Cluster) -> None:
    peers.create("mended", "apiVersion: v1")
    message = peers.wait("mended", "Accepted", "False", names.KUBECONFIG_INVALID)
    assert "has no list of contexts" in message
    reaching = Account(peer_a).kubeconfig().replace("token:", "tokenFile:")
    peers.secret("mended", reaching)
    eventually("why", lambda: "holds all it needs, got tokenFile" in peers.condition("mended", "Accepted")[2])
    assert "KubeconfigInvalid" in peers.plane.kubectl("get", "peer", "mended").stdout
    peers.secret("mended", Account(peer_a).kubeconfig())
    peers.wait_ready("mended")


def test_of_two_peers_with_one_node_the_older_is_served(peers: Peers, peer_a: Cluster, peer_b: Cluster) -> None:
    peers.create("first", Account(peer_a).kubeconfig(), node={"name": "shared"})
    peers.wait_ready("first")
    peers.create("second", Account(peer_b).kubeconfig(), node={"name": "shared"})
    message = peers.wait("second", "Accepted", "False", names.PEER_CONFLICT)
    assert message == "node.name: expected another name, peer first has the node shared"
    assert peers.condition("first", "NodeReady")[0] == "True"
    assert not peers.api.get("Peer", "", "second")["metadata"].get("finalizers")


def test_an_edit_restarts_that_peer_alone_and_its_pods_go_on(
    vnode: Vnode, peers: Peers, peer_a: Cluster, peer_b: Cluster, new_space: NewSpace
) -> None:
    peers.create("edited", Account(peer_a).kubeconfig())
    peers.create("other", Account(peer_b).kubeconfig())
    peers.wait_ready("edited")
    peers.wait_ready("other")
    space = new_space(peer_a, "edited")
    space.create(deployment("web", "edited", 2))
    space.rolled_out("deployment/web")
    before = uids(space.wait_one_to_one(2)), uids(space.mirrors())
    peers.api.patch("Peer", "", "edited", {"spec": {"node": {"region": "south"}}})
    eventually(
        "the Node has it",
        lambda: (
            peers.api.get("Node", "", "edited")["metadata"]["labels"].get("topology.kubernetes.io/region") == "south"
        ),
    )
    peers.wait_ready("edited")
    assert (uids(space.wait_one_to_one(2)), uids(space.mirrors())) == before
    stopped = [line["peer"] for line in vnode.log_lines() if line["message"] == "peer session stopped"]
    assert "edited" in stopped
    assert "other" not in stopped


def test_another_secret_is_used_without_a_restart_and_a_revoked_one_shows_soon(
    vnode: Vnode, peers: Peers, peer_a: Cluster, new_space: NewSpace
) -> None:
    old, new = Account(peer_a), Account(peer_a)
    peers.create("rotated", old.kubeconfig())
    peers.wait_ready("rotated")
    space = new_space(peer_a, "rotated")
    space.create(deployment("web", "rotated", 1))
    space.rolled_out("deployment/web")
    before = uids(space.mirrors())
    old.revoke()
    began = time.monotonic()
    peers.wait("rotated", "Authorized", "False", names.CREDENTIAL_REFUSED, REVOKED_WITHIN_S)
    print(f"revoked, told after {time.monotonic() - began:.1f} s")
    assert peers.condition("rotated", "Reachable")[0] == "True"
    assert names.CREDENTIAL_REFUSED in peers.plane.kubectl("get", "peer", "rotated").stdout
    peers.secret("rotated", new.kubeconfig())
    peers.wait("rotated", "Authorized", "True", names.CREDENTIAL_ACCEPTED)
    peers.wait_ready("rotated")
    space.kubectl("scale", "deployment/web", "--replicas=2")
    space.rolled_out("deployment/web")
    assert before.items() <= uids(space.mirrors()).items()
    stopped = [line["peer"] for line in vnode.log_lines() if line["message"] == "peer session stopped"]
    assert "rotated" not in stopped
    error = peers.api.get("Peer", "", "rotated")["status"]["lastError"]
    assert error["message"], "what went wrong last is still told"


def test_a_deleted_peer_is_drained_and_shows_how_far_it_is(peers: Peers, peer_a: Cluster, new_space: NewSpace) -> None:
    peers.create("leaving", Account(peer_a).kubeconfig())
    peers.wait_ready("leaving")
    space = new_space(peer_a, "leaving")
    budget = {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}
    space.create(
        {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"}, "spec": budget},
        deployment("web", "leaving", 1),
    )
    space.rolled_out("deployment/web")
    peers.delete("leaving")
    eventually("it says what is in the way", lambda: "disruption budget" in _draining(peers, "leaving"))
    assert _draining(peers, "leaving").startswith("node leaving: 1 Pods to go")
    assert "Draining" in peers.plane.kubectl("get", "peer", "leaving").stdout
    # Both go at once, as with `kubectl delete -f`: it is drained all the same.
    peers.api.delete("Secret", NAMESPACE, "leaving")
    space.home.delete("PodDisruptionBudget", space.name, "web")
    peers.wait_gone("leaving")
    assert peers.api.find("Node", "", "leaving") is None
    assert peers.api.find("Lease", "kube-node-lease", "leaving") is None
    assert not space.peer.list("Pod", labels=f"{names.ORIGIN_NODE}=leaving")
    space.wait_remote_namespace_leaves()


def test_a_peer_that_is_gone_for_ever_can_be_abandoned_and_says_what_it_left(
    peers: Peers, peer_a: Cluster, new_space: NewSpace
) -> None:
    relay = Relay(peer_a)
    peers.create("lost", Account(peer_a).kubeconfig(relay.url))
    peers.wait_ready("lost")
    space = new_space(peer_a, "lost")
    space.create(pod("web", "lost"))
    space.wait_ready("web")
    relay.cut()
    peers.wait("lost", "Reachable", "False", names.PEER_UNREACHABLE)
    peers.delete("lost")
    eventually("it waits, and says the way out", lambda: f"{names.ABANDON_AFTER}=0s" in _draining(peers, "lost"))
    uid = peers.api.get("Peer", "", "lost")["metadata"]["uid"]
    peers.api.patch("Peer", "", "lost", ABANDON)
    peers.wait_gone("lost", 40)
    assert peers.api.find("Node", "", "lost") is None
    eventually("its Pod is gone", lambda: space.pod("web") is None)
    (event,) = eventually(
        "an Event", lambda: peers.api.list("Event", "default", fields=f"reason={names.PEER_ABANDONED}")
    )
    assert event["involvedObject"]["uid"] == uid
    assert f"left behind at the peer: 1 objects in {space.remote}" in event["message"]
    assert space.mirror("web"), "it runs on, for all anybody knows"
    space.peer.delete("Pod", space.remote, "web")
    space.peer.delete("Namespace", "", space.remote)


def test_a_restart_takes_up_what_it_finds_and_a_peer_deleted_meanwhile_is_drained(
    vnode: Vnode, peers: Peers, peer_a: Cluster, peer_b: Cluster, new_space: NewSpace
) -> None:
    peers.create("stays", Account(peer_a).kubeconfig())
    peers.create("goes", Account(peer_b).kubeconfig())
    peers.wait_ready("stays")
    peers.wait_ready("goes")
    space = new_space(peer_a, "stays")
    space.create(deployment("web", "stays", 2))
    space.rolled_out("deployment/web")
    before = uids(space.wait_one_to_one(2)), uids(space.mirrors())
    vnode.kill()
    peers.delete("goes")
    vnode.start().wait_ready()
    peers.wait_gone("goes")
    assert peers.api.find("Node", "", "goes") is None
    peers.wait_ready("stays")
    assert (uids(space.wait_one_to_one(2)), uids(space.mirrors())) == before
    assert vnode.metric("vnode_runtime_bugs_total") == 0
    assert "Traceback" not in vnode.log


def test_a_home_apiserver_that_was_restarted_is_followed_again(peers: Peers, home: Cluster, peer_a: Cluster) -> None:
    peers.create("orbits", Account(peer_a).kubeconfig())
    peers.wait_ready("orbits")
    home.plane.restart_apiserver()
    home.plane.wait_ready()
    peers.api.patch("Peer", "", "orbits", {"spec": {"node": {"zone": "z1"}}})
    zone = "topology.kubernetes.io/zone"
    eventually("the edit is seen", lambda: peers.api.get("Node", "", "orbits")["metadata"]["labels"].get(zone), 40)
    peers.delete("orbits")
    peers.wait_gone("orbits")


def _rests(peers: Peers, name: str) -> Callable[[], bool]:
    """To be looked at again and again: true once the object has been the same for longer than any pause in writing."""
    seen, since = "", time.monotonic()

    def look() -> bool:
        nonlocal seen, since
        version = peers.api.get("Peer", "", name)["metadata"]["resourceVersion"]
        if version != seen:
            seen, since = version, time.monotonic()
        return time.monotonic() - since > 8

    return look


def _draining(peers: Peers, name: str) -> str:
    status, reason, message = peers.condition(name, "Draining")
    assert (status, reason) == ("True", names.DRAINING)
    return message


def _counted(peers: Peers, name: str) -> Json:
    status: Json = peers.api.get("Peer", "", name)["status"]
    assert status["pods"] == {"offloaded": 1, "pending": 0, "failing": 0}
    return status
