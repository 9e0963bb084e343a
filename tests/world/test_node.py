"""The virtual Node of a real peer at a real home: registered, kept as it should be, Ready as the peer is, removed.

The controller runs in this process, on a loop in a thread of its own; Pods have no loop here, the tests play it.
"""

import asyncio
import contextlib
import json
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from datetime import datetime
from typing import Any

import pytest
from msgspec.structs import replace

from tests.expect import eventually
from tests.world.api import Api, Json
from vnode import names
from vnode.config import CapacitySpec, NodeSpec, PeerSpec, Taint
from vnode.devcluster.build import Binaries
from vnode.devcluster.cluster import Cluster
from vnode.errors import VnodeError
from vnode.kube.client import Client
from vnode.kube.credentials import from_kubeconfig
from vnode.node.controller import NodeController
from vnode.node.manifest import Identity
from vnode.node.removal import drain_and_remove
from vnode.node.view import nodes_informer, others_informer
from vnode.runtime.recorder import Recorder
from vnode.telemetry.metrics import Metrics

PORT = 4321
LEASES = "kube-node-lease"


@pytest.fixture(scope="module")
def peer(binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A peer of our own: what others do there would change its capacity, and we take its apiserver away."""
    with Cluster("node-peer", tmp_path_factory.mktemp("node-peer"), binaries, index=40, simulated=2) as cluster:
        yield cluster


class Running:
    """A NodeController at work for Node `name`, allowed to be Ready, with what a session would give it."""

    def __init__(self, home: Cluster, peer: Cluster, name: str, spec: PeerSpec, list_nodes: bool) -> None:
        self.name = name
        self.api = Api(home.plane)
        self.identity = Identity("home", self.api.get("Namespace", "", "kube-system")["metadata"]["uid"])
        self.node: NodeController
        self.client: Client
        self._spec, self._list_nodes = spec, list_nodes
        self._kubeconfigs = {"home": home.plane.kubeconfig, "edge": peer.plane.kubeconfig}
        self._loop = asyncio.new_event_loop()
        self._up = threading.Event()
        self._main: asyncio.Task[None]
        self._thread = threading.Thread(target=self._run, name=name)
        self._thread.start()
        assert self._up.wait(5)

    def call(self, work: Coroutine[Any, Any, Any], limit_s: float = 60) -> Any:
        """The result of `work`, run beside the controller."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(limit_s)

    def stop(self) -> None:
        """End it as a crash would: nothing is said."""
        self._loop.call_soon_threadsafe(self._main.cancel)
        self._thread.join(10)
        assert not self._thread.is_alive()
        assert self._main.cancelled(), self._main.exception()

    def seen(self) -> Json | None:
        """The Node now."""
        return self.api.find("Node", "", self.name)

    def until(self, why: str, true_of: Callable[[Json], object], limit_s: float = 10) -> Json:
        """The Node, once it is so."""

        def look() -> Json | None:
            node = self.seen()
            return node if node and true_of(node) else None

        node = eventually(f"{self.name}: {why}", look, limit_s)
        assert node
        return node

    def ready(self, status: str, reason: str, limit_s: float = 10) -> Json:
        """The Ready condition, once it is so."""
        why = f"Ready is {status}, {reason}"
        expected = {"status": status, "reason": reason}.items()
        return condition(self.until(why, lambda node: expected <= condition(node, "Ready").items(), limit_s), "Ready")

    def filled(self) -> Json:
        """The Node, once it is Ready and shows the peer's capacity."""
        self.ready("True", names.VNODE_READY)
        return self.until("its capacity is there", lambda node: node["status"]["capacity"]["cpu"] == "64")

    def lease(self) -> Json | None:
        return self.api.find("Lease", LEASES, self.name)

    def pods(self, labels: str = "") -> list[Json]:
        return self.api.list("Pod", fields=f"spec.nodeName={self.name}", labels=labels)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._main = self._loop.create_task(self._session())
        with contextlib.suppress(asyncio.CancelledError), contextlib.closing(self._loop):
            self._loop.run_until_complete(self._main)

    async def _session(self) -> None:
        metrics = Metrics()
        at_home, at_peer = (
            Client(from_kubeconfig(str(path)), side, metrics) for side, path in self._kubeconfigs.items()
        )
        self.client = at_home
        nodes = others = None
        if self._list_nodes:
            nodes, others = nodes_informer(at_peer), others_informer(at_peer, self.identity.cluster_uid)
        recorder = Recorder(at_home, self.name)
        self.node = NodeController(
            home=at_home,
            peer=at_peer,
            spec=self._spec,
            identity=self.identity,
            address="127.0.0.1",
            port=lambda: PORT,
            nodes=nodes,
            others=others,
            metrics=metrics,
            registers=lambda: True,
            recorder=recorder,
        )
        try:
            async with asyncio.TaskGroup() as group:
                for part in (self.node, recorder, nodes, others):
                    if part is not None:
                        group.create_task(part.run())
                self.node.allow_ready()
                self._up.set()
        finally:
            await at_home.close()
            await at_peer.close()
            await asyncio.sleep(0.2)  # TLS says goodbye; else its sockets are closed by the garbage collector


def condition(node: Json, kind: str) -> Json:
    """The Node's condition of that type, {} when there is none."""
    return next((each for each in node["status"].get("conditions", ()) if each["type"] == kind), {})


@contextlib.contextmanager
def running(
    home: Cluster,
    peer: Cluster,
    name: str,
    *,
    node: NodeSpec | None = None,
    capacity: CapacitySpec | None = None,
    list_nodes: bool = True,
) -> Iterator[Running]:
    """A NodeController for Node `name`, at work during the block; the Node stays afterwards."""
    spec = PeerSpec("edge", "", node=replace(node or NodeSpec(), name=name), capacity=capacity or CapacitySpec())
    run = Running(home, peer, name, spec, list_nodes)
    try:
        yield run
    finally:
        run.stop()


def test_the_node_is_registered_as_the_peer_is(home: Cluster, peer: Cluster) -> None:
    with running(home, peer, "vn-register", node=NodeSpec(labels={"team": "red"}, zone="eu-1")) as run:
        node = run.filled()
        labels, status = node["metadata"]["labels"], node["status"]
        expected = {
            "type": "virtual-kubelet",
            "kubernetes.io/role": "agent",
            "kubernetes.io/hostname": "vn-register",
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64",
            "topology.kubernetes.io/zone": "eu-1",
            names.PEER: "edge",
            "team": "red",
        }
        assert labels.items() >= expected.items()
        assert {"key": names.PEER, "value": "edge", "effect": "NoSchedule"} in node["spec"]["taints"]
        assert status["addresses"] == [{"type": "InternalIP", "address": "127.0.0.1"}]
        assert status["daemonEndpoints"] == {"kubeletEndpoint": {"Port": PORT}}
        assert status["capacity"] == {"cpu": "64", "ephemeral-storage": "200Gi", "memory": "256Gi", "pods": "2k"}
        assert status["nodeInfo"]["kubeletVersion"] == "v1.37.2"
        assert status["nodeInfo"]["containerRuntimeVersion"] == "containerd://1.6.20"
        shown = home.plane.kubectl("get", "node", "vn-register", "--no-headers").stdout.split()
        assert [*shown[1:3], shown[-1]] == ["Ready", "agent", "v1.37.2"]


def test_a_quiet_node_is_not_written(home: Cluster, peer: Cluster) -> None:
    with running(home, peer, "vn-quiet") as run:
        run.filled()
        # The lifecycle controller takes its first taint away.
        before = run.until("untainted", lambda node: len(node["spec"]["taints"]) == 1)
        renewed = eventually("the Lease is there", run.lease)
        eventually("time passes: the next heartbeat", lambda: run.lease() != renewed, 15)
        assert run.seen() == before


STRIPS = """
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {name: strips}
spec:
  reinvocationPolicy: Never
  matchConstraints:
    resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [nodes]}]
  matchConditions:
  - {name: has, expression: 'object.metadata.name == "vn-stripped" && object.metadata.?labels[?"team"].hasValue()'}
  mutations:
  - patchType: JSONPatch
    jsonPatch: {expression: '[JSONPatch{op: "remove", path: "/metadata/labels/team"}]'}
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: {name: strips}
spec: {policyName: strips}
"""


def test_what_the_apiserver_does_not_take_is_not_written_again_and_again(home: Cluster, peer: Cluster) -> None:
    home.plane.kubectl("apply", "-f", "-", input=STRIPS)
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "vn-stripped", "labels": {"team": "red"}}}
    attempt = ("create", "-f", "-", "--dry-run=server", "-o", "jsonpath={.metadata.labels}")
    try:
        eventually("it is in force", lambda: "team" not in home.plane.kubectl(*attempt, input=json.dumps(node)).stdout)
        with running(home, peer, "vn-stripped", node=NodeSpec(labels={"team": "red"})) as run:
            run.filled()
            stripped = run.until("stripped and untainted", lambda node: len(node["spec"]["taints"]) == 1)
            assert "team" not in stripped["metadata"]["labels"]
            first = eventually("the Lease is there", run.lease)
            second = eventually(
                "others have written theirs", lambda: now if (now := run.lease()) != first else None, 15
            )
            before = run.seen()
            eventually("time passes: the next heartbeat", lambda: run.lease() != second, 15)
            assert run.seen() == before
    finally:
        home.plane.kubectl("delete", "-f", "-", input=STRIPS)


def test_the_lease_is_the_nodes_and_renewed(home: Cluster, peer: Cluster) -> None:
    with running(home, peer, "vn-lease") as run:
        first = eventually("the Lease is there", run.lease)
        assert first
        uid = run.until("it is there", lambda node: True)["metadata"]["uid"]
        owner = {"apiVersion": "v1", "kind": "Node", "name": "vn-lease", "uid": uid}
        assert first["metadata"]["ownerReferences"] == [owner]
        assert (first["spec"]["holderIdentity"], first["spec"]["leaseDurationSeconds"]) == ("vn-lease", 40)
        run.api.patch("Lease", LEASES, "vn-lease", {"metadata": {"labels": {"a": "b"}}})  # our next PUT meets 409

        def renewed() -> Json | None:
            now = run.lease()
            return now if now and now["spec"]["renewTime"] != first["spec"]["renewTime"] else None

        second = eventually("it is renewed", renewed, 13)
        assert second
        times = [datetime.fromisoformat(each["spec"]["renewTime"]) for each in (first, second)]
        assert 9 < (times[1] - times[0]).total_seconds() < 13
        assert second["metadata"]["labels"] == {"a": "b"}


def test_hand_edits_are_put_back_and_others_fields_stay(home: Cluster, peer: Cluster) -> None:
    with running(home, peer, "vn-edits") as run:
        run.filled()
        foreign = {"key": "theirs", "effect": "NoSchedule"}
        labels = {"type": "mine", "theirs": "x", names.PEER: None}
        edit = {"metadata": {"labels": labels}, "spec": {"taints": [foreign], "unschedulable": True}}
        run.api.patch("Node", "", "vn-edits", edit)
        conditions = [
            {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"},
            {"type": "NetworkUnavailable", "status": "False", "reason": "Routes"},
        ]
        resources = {"cpu": "1", "example.com/dongle": "2"}
        run.api.patch_status("Node", "", "vn-edits", {"capacity": resources, "conditions": conditions})

        def right(node: Json) -> bool:
            held = node["metadata"]["labels"]
            return (
                (held["type"], held.get(names.PEER)) == ("virtual-kubelet", "edge")
                and names.PEER in {taint["key"] for taint in node["spec"]["taints"]}
                and condition(node, "Ready")["status"] == "True"
                and node["status"]["capacity"]["cpu"] == "64"
            )

        node = run.until("our fields are as they were", right, 5)
        assert node["metadata"]["labels"]["theirs"] == "x"
        assert node["spec"]["unschedulable"]
        assert foreign in node["spec"]["taints"]
        assert node["status"]["capacity"]["example.com/dongle"] == "2"
        assert condition(node, "NetworkUnavailable")["status"] == "False"


def test_a_restart_takes_the_node_over_and_what_is_no_longer_configured_goes(home: Cluster, peer: Cluster) -> None:
    old = NodeSpec(labels={"team": "red"}, taints=[Taint("a", "NoSchedule"), Taint("b", "NoSchedule")])
    with running(home, peer, "vn-restart", node=old) as run:
        before = run.filled()
    with running(home, peer, "vn-restart", node=NodeSpec(taints=[Taint("b", "NoSchedule")])) as run:
        node = run.until("the label is gone", lambda node: "team" not in node["metadata"]["labels"])
        assert "a" not in {taint["key"] for taint in node["spec"]["taints"]}
        assert node["metadata"]["uid"] == before["metadata"]["uid"]
        uptime = eventually("the Lease is there", run.lease)
        eventually("time passes: the next heartbeat", lambda: run.lease() != uptime, 15)
        since = condition(before, "Ready")["lastTransitionTime"]
        assert run.ready("True", names.VNODE_READY)["lastTransitionTime"] == since, "it was never NotReady"


def test_a_deleted_node_comes_back(home: Cluster, peer: Cluster) -> None:
    with running(home, peer, "vn-deleted") as run:
        uid = run.filled()["metadata"]["uid"]
        run.api.delete("Node", "", "vn-deleted")
        run.until("it is there again", lambda node: node["metadata"]["uid"] != uid, 2)
        run.ready("True", names.VNODE_READY, 3)


def test_a_foreign_node_is_not_touched(home: Cluster, peer: Cluster) -> None:
    api = Api(home.plane)
    api.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "vn-foreign"}})
    with running(home, peer, "vn-foreign") as run:
        eventually("the problem is told", lambda: "set node.name of peer edge" in run.node.problem)
        told = f"reason={names.NODE_NAME_TAKEN},involvedObject.name=vn-foreign"
        eventually("an Event tells it too", lambda: api.list("Event", fields=told))
        node = run.until("it is there", lambda node: True)
        assert names.CLUSTER_UID not in node["metadata"].get("annotations", {})
        assert run.lease() is None
        with pytest.raises(VnodeError, match="not this vnode's"):
            run.call(drain_and_remove(run.client, "vn-foreign", run.identity, lambda _: None, 5))
        api.delete("Node", "", "vn-foreign")
        run.ready("True", names.VNODE_READY)
        assert run.node.problem == ""


def others_pod(name: str, labels: dict[str, str] | None = None) -> Json:
    container = {"name": "c", "image": "x", "resources": {"requests": {"cpu": "4", "memory": "8Gi"}}}
    spec = {"containers": [container], "nodeName": "node-peer-0"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels or {}}, "spec": spec}


def test_capacity_follows_the_peers_nodes_and_the_pods_of_others(home: Cluster, peer: Cluster) -> None:
    at_peer = Api(peer.plane)
    with running(home, peer, "vn-capacity", capacity=CapacitySpec({"memory": "200Gi"})) as run:

        def shows(cpu: str, left: str) -> Json:
            def right(node: Json) -> bool:
                return (node["status"]["capacity"]["cpu"], node["status"]["allocatable"]["cpu"]) == (cpu, left)

            return run.until(f"it has {cpu} cpu and {left} left", right, 6)

        node = shows("64", "64")
        assert node["status"]["capacity"]["memory"] == node["status"]["allocatable"]["memory"] == "200Gi"
        ours = {names.ORIGIN_CLUSTER_UID: run.identity.cluster_uid}
        at_peer.create(others_pod("ours", ours), "default")
        at_peer.create(others_pod("theirs"), "default")
        shows("64", "60")
        at_peer.patch("Node", "", "node-peer-0", {"spec": {"unschedulable": True}})
        shows("32", "32")
        at_peer.patch("Node", "", "node-peer-0", {"spec": {"unschedulable": None}})
        shows("64", "60")
        for name in ("ours", "theirs"):
            at_peer.delete("Pod", "default", name, 0)
        shows("64", "64")


def test_limits_alone_where_nodes_may_not_be_listed(home: Cluster, peer: Cluster) -> None:
    limits = CapacitySpec({"cpu": "10", "memory": "20Gi", "pods": "30"})
    with running(home, peer, "vn-limits", capacity=limits, list_nodes=False) as run:
        run.ready("True", names.VNODE_READY)
        expected = {"cpu": "10", "ephemeral-storage": "0", "memory": "20Gi", "pods": "30"}
        run.until("it offers the limits", lambda node: node["status"]["allocatable"] == expected)


def test_a_stopped_vnode_says_so(home: Cluster, peer: Cluster) -> None:
    with running(home, peer, "vn-stopped") as run:
        run.filled()
        run.call(run.node.stop("told to"), 3)
        assert run.ready("False", names.VNODE_STOPPED, 1)["message"] == "told to"
    assert condition(run.seen() or {}, "Ready")["reason"] == names.VNODE_STOPPED


def put_pods(api: Api, node: str) -> None:
    """Two Pods under a budget that lets one go, and a DaemonSet's, all running on `node`."""
    containers = [{"name": "c", "image": "x"}]
    for name in ("drained-0", "drained-1"):
        spec = {"containers": containers, "nodeName": node}
        metadata = {"name": name, "labels": {"app": "drained"}}
        api.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}, "default")
        ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        api.patch_status("Pod", "default", name, ready)
    budget = {"minAvailable": 1, "selector": {"matchLabels": {"app": "drained"}}}
    metadata = {"name": "drained"}
    api.create(
        {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": metadata, "spec": budget}, "default"
    )
    template = {
        "metadata": {"labels": {"app": "daemon"}},
        "spec": {
            "containers": containers,
            "tolerations": [{"key": names.PEER, "operator": "Exists"}],
            "nodeSelector": {"kubernetes.io/hostname": node},
        },
    }
    daemons = {"selector": {"matchLabels": {"app": "daemon"}}, "template": template}
    api.create({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": metadata, "spec": daemons}, "default")

    def counted() -> bool:
        status = api.get("PodDisruptionBudget", "default", "drained")["status"]
        return status.get("disruptionsAllowed") == 1 and len(api.list("Pod", fields=f"spec.nodeName={node}")) == 3

    eventually("the budget has counted, the DaemonSet's Pod is there", counted)


@contextlib.contextmanager
def the_leaving_end(run: Running) -> Iterator[None]:
    """What a session's Pod loop does, during the block: Pods that are to end, end."""
    over = threading.Event()

    def release() -> None:
        while not over.wait(0.2):
            for pod in run.pods():
                if "deletionTimestamp" in pod["metadata"]:
                    run.api.delete("Pod", pod["metadata"]["namespace"], pod["metadata"]["name"], 0)

    thread = threading.Thread(target=release)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_drained_node_goes_for_good_and_budgets_hold(home: Cluster, peer: Cluster) -> None:
    said: list[str] = []
    with running(home, peer, "vn-drained") as run:
        run.filled()
        put_pods(run.api, "vn-drained")
        with the_leaving_end(run):
            with pytest.raises(VnodeError, match=r"not drained within 4 s, it stays cordoned: .*disruption budget"):
                run.call(drain_and_remove(run.client, "vn-drained", run.identity, said.append, 4))
            assert run.until("it is there", lambda node: True)["spec"]["unschedulable"]
            assert len(run.pods("app=drained")) == 1
            run.api.delete("PodDisruptionBudget", "default", "drained")
            run.call(drain_and_remove(run.client, "vn-drained", run.identity, said.append, 30))
        assert said[0] == "node vn-drained: cordoned"
        assert said[-1] == "node vn-drained: removed"
        assert run.pods() == []
        with pytest.raises(AssertionError, match="not within"):
            eventually("the running vnode leaves it removed", lambda: run.seen() or run.lease(), 4)
    run.api.delete("DaemonSet", "default", "drained")


def test_a_peer_that_hangs_or_refuses_is_told_within_15_s_and_so_is_its_return(home: Cluster, peer: Cluster) -> None:
    with running(home, peer, "vn-probe") as run:
        run.filled()
        with hanging(peer):
            assert "/readyz: no answer within 3 s" in run.ready("False", names.PEER_UNREACHABLE, 15)["message"]
        run.ready("True", names.VNODE_READY, 10)
        renewed = run.lease()
        peer.plane.kill("kube-apiserver")
        try:
            assert "Cannot connect" in run.ready("False", names.PEER_UNREACHABLE, 15)["message"]
            eventually("vnode's own Lease goes on", lambda: run.lease() != renewed, 12)
            assert (run.seen() or {})["status"]["capacity"]["cpu"] == "64", "what was known stays"
        finally:
            peer.plane.restart_apiserver()
        run.ready("True", names.VNODE_READY, 10)


def test_a_peer_away_at_a_restart_is_told_and_its_node_keeps_what_it_showed(home: Cluster, peer: Cluster) -> None:
    with running(home, peer, "vn-away") as run:
        before = run.filled()["status"]
    with hanging(peer), running(home, peer, "vn-away") as run:
        run.ready("False", names.PEER_UNREACHABLE, 15)
        after = (run.seen() or {})["status"]
        assert {**after, "conditions": None} == {**before, "conditions": None}


@contextlib.contextmanager
def hanging(peer: Cluster) -> Iterator[None]:
    """The peer's apiserver takes connections and answers nothing during the block."""
    peer.plane.processes.signal("kube-apiserver", signal.SIGSTOP)
    try:
        yield
    finally:
        peer.plane.processes.signal("kube-apiserver", signal.SIGCONT)
