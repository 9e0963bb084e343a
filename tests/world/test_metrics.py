"""`kubectl top`, autoscaling and what else reads a kubelet's numbers, by an unmodified metrics-server at home.

The peer has no metrics API: usage comes from its kubelet. A rate-telling peer is in `tests/loop/test_kubelet_reports`.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.expect import eventually
from tests.world.manifests import deployment, pod
from tests.world.test_real_node import shell
from tests.world.vnodes import Space, Vnode, peer_config
from vnode.devcluster.cluster import Cluster
from vnode.devcluster.metricsserver import MetricsServer

NODE = "edge-metrics"
# Burns a fifth of a core until it is told to be calm.
BUSY = "while [ ! -e /tmp/calm ]; do :; done; trap exit TERM; while true; do sleep 0.1; done"
LIMITS = {"requests": {"cpu": "100m"}, "limits": {"cpu": "200m"}}


@pytest.fixture(scope="module")
def node(home: Cluster, real_peer: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vnode]:
    process = Vnode(tmp_path_factory.mktemp("vnode-metrics"), home, [peer_config(NODE, real_peer)]).start()
    try:
        process.wait_ready()
        with MetricsServer(home.plane):
            yield process
    finally:
        process.stop()


@pytest.fixture
def space(node: Vnode, real_peer: Cluster, new_space: Callable[..., Space]) -> Space:
    assert node.nodes == [NODE]
    made: Space = new_space(real_peer, NODE)
    return made


def raw(cluster: Cluster, path: str, node: str = NODE) -> str:
    return cluster.plane.kubectl("get", "--raw", f"/api/v1/nodes/{node}/proxy/{path}").stdout


def families(text: str) -> dict[str, tuple[str, set[str]]]:
    """HELP and TYPE of each family, and the label names of its samples."""
    found: dict[str, tuple[str, set[str]]] = {}
    for comments, name in re.findall(r"((?:# HELP .*\n)# TYPE (\S+) \S+\n)", text):
        lines = re.findall(rf"^{name}(?:\{{(.*)\}})? \S+(?: \d+)?$", text, re.M)
        found[name] = comments, {label for line in lines for label in re.findall(r'(\w+)="', line)}
    return found


def test_top_and_the_autoscaler_see_what_pods_at_the_peer_use(space: Space, home: Cluster) -> None:
    space.create(
        deployment("load", NODE, 1, containers=[shell(BUSY, resources=LIMITS)], terminationGracePeriodSeconds=0),
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "load"},
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "load"},
                "minReplicas": 1,
                "maxReplicas": 2,
                "metrics": [
                    {
                        "type": "Resource",
                        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
                    }
                ],
                "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
            },
        },
    )
    space.rolled_out("deployment/load")

    def top() -> list[str]:
        return home.plane.kubectl("-n", space.name, "top", "pod", "--no-headers", check=False).stdout.split()

    name, cpu, memory = eventually("kubectl top shows the Pod", top, 60)[:3]
    assert name in space.pods("app=load")
    assert 20 <= int(cpu.removesuffix("m")) <= 260, "not what its limit lets it burn"
    assert memory.endswith("Mi")
    shown = eventually(
        "kubectl top shows the Node",
        lambda: home.plane.kubectl("top", "node", NODE, "--no-headers", check=False).stdout.split(),
    )
    assert shown[0] == NODE
    assert shown[1] != "<unknown>"

    def replicas() -> int:
        found = space.home.find("Deployment", space.name, "load")
        return int(found["spec"]["replicas"]) if found else 0

    eventually("the autoscaler scales up", lambda: replicas() == 2, 60)
    space.rolled_out("deployment/load")
    for each in space.pods("app=load"):
        space.kubectl("exec", each, "--", "touch", "/tmp/calm")
    eventually("the autoscaler scales down", lambda: replicas() == 1, 60)


def test_reports_are_the_kubelets_own_under_homes_names(space: Space, home: Cluster, real_peer: Cluster) -> None:
    space.create(pod("two", NODE, containers=[shell(BUSY, name=each, resources=LIMITS) for each in ("a", "b")]))
    space.wait_ready("two", limit_s=60)
    there = space.mirror("two")
    assert there is not None
    peer_node = there["spec"]["nodeName"]

    def measured() -> dict[str, Any]:
        found = json.loads(raw(home, "stats/summary?only_cpu_and_memory=true"))
        items = [item for item in found["pods"] if item["podRef"]["namespace"] == space.name]
        assert items, "not measured yet"
        assert len(items[0]["containers"]) == 2
        return dict(items[0])

    ours = eventually("the Pod is measured", measured, 60)
    here = space.pod("two")
    assert here is not None
    assert ours["podRef"] == {"name": "two", "namespace": space.name, "uid": here["metadata"]["uid"]}
    theirs = next(
        item
        for item in json.loads(raw(real_peer, "stats/summary?only_cpu_and_memory=true", peer_node))["pods"]
        if item["podRef"]["name"] == "two"
    )
    starts = {item["name"]: item["startTime"] for item in theirs["containers"]}
    assert {item["name"]: item["startTime"] for item in ours["containers"]} == starts
    for item in ours["containers"]:
        assert item["cpu"].keys() <= theirs["containers"][0]["cpu"].keys()
        assert item["memory"].keys() <= theirs["containers"][0]["memory"].keys()

    text, direct = raw(home, "metrics/resource"), raw(real_peer, "metrics/resource", peer_node)
    known = families(direct)
    optional = {name for name in known if "swap" in name}
    assert families(text) == {name: family for name, family in known.items() if name not in optional}
    assert space.remote not in text
    assert "resource_scrape_error 0" in text

    listed = json.loads(raw(home, "pods"))["items"]
    assert {item["metadata"]["uid"] for item in listed} >= {here["metadata"]["uid"]}
    assert all(item["spec"]["nodeName"] == NODE for item in listed)
    (item,) = [
        item for item in json.loads(raw(home, "runningpods/"))["items"] if item["metadata"]["namespace"] == space.name
    ]
    assert item["metadata"]["uid"] == here["metadata"]["uid"]
    assert sorted(each["name"] for each in item["spec"]["containers"]) == ["a", "b"]
    for path in ("metrics/probes", "metrics/cadvisor"):
        assert space.remote not in raw(home, path)
    assert json.loads(raw(home, "configz"))["kubeletconfig"]["kind"] == "KubeletConfiguration"
    assert "vnode_kubelet_requests_total" in raw(home, "metrics")
