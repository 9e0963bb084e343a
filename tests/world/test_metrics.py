"""`kubectl top`, autoscaling and what else reads a kubelet's numbers, by an unmodified metrics-server at home.

The peer first has no metrics API, so that usage comes from its kubelet; at the end it has one.
"""

import contextlib
import http.client
import json
import re
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.expect import eventually
from tests.world.manifests import deployment, pod, shell
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


class Port:
    """The Node's kubelet port, asked as an administrator of home asks it: no apiserver proxies to loopback."""

    def __init__(self, home: Cluster, directory: Path, node: str = NODE) -> None:
        status = home.plane.get(f"/api/v1/nodes/{node}")["status"]
        self._port = int(status["daemonEndpoints"]["kubeletEndpoint"]["Port"])
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname, self._context.verify_mode = False, ssl.CERT_NONE
        admin = home.plane.authority.issue("admin", ["system:masters"])
        self._context.load_cert_chain(*admin.write(directory, "admin"))

    def get(self, path: str) -> str:
        """The text of a successful answer."""
        with contextlib.closing(
            http.client.HTTPSConnection("127.0.0.1", self._port, timeout=30, context=self._context)
        ) as connection:
            connection.request("GET", f"/{path}")
            response = connection.getresponse()
            text = response.read().decode()
            assert response.status == 200, text
            return text


def normal(line: str) -> str:
    """A sample's name and labels, whatever their order; its value goes."""
    name, _, rest = line.partition("{")
    labels = sorted(re.findall(r'\w+="[^"]*"', rest))
    return f"{name} {labels}"


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


def test_reports_are_the_kubelets_own_under_homes_names(
    space: Space, home: Cluster, real_peer: Cluster, tmp_path: Path
) -> None:
    port = Port(home, tmp_path)
    probe = {"exec": {"command": ["true"]}, "periodSeconds": 1}
    containers = [shell(BUSY, name=each, resources=LIMITS, readinessProbe=probe) for each in ("a", "b")]
    space.create(pod("two", NODE, containers=containers, terminationGracePeriodSeconds=0))
    space.wait_ready("two", limit_s=60)
    there = space.mirror("two")
    assert there is not None

    def direct(path: str) -> str:
        raw = f"/api/v1/nodes/{there['spec']['nodeName']}/proxy/{path}"
        return real_peer.plane.kubectl("get", "--raw", raw).stdout

    def measured() -> dict[str, Any]:
        found = json.loads(port.get("stats/summary?only_cpu_and_memory=true"))
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
        for item in json.loads(direct("stats/summary?only_cpu_and_memory=true"))["pods"]
        if item["podRef"]["name"] == "two"
    )
    starts = {item["name"]: item["startTime"] for item in theirs["containers"]}
    assert {item["name"]: item["startTime"] for item in ours["containers"]} == starts
    for item in ours["containers"]:
        assert item["cpu"].keys() <= theirs["containers"][0]["cpu"].keys()
        assert item["memory"].keys() <= theirs["containers"][0]["memory"].keys()

    text, known = port.get("metrics/resource"), families(direct("metrics/resource"))
    optional = {name for name in known if "swap" in name}
    assert families(text) == {name: family for name, family in known.items() if name not in optional}
    assert space.remote not in text
    assert "resource_scrape_error 0" in text

    listed = json.loads(port.get("pods"))["items"]
    assert {item["metadata"]["uid"] for item in listed} >= {here["metadata"]["uid"]}
    assert all(item["spec"]["nodeName"] == NODE for item in listed)
    (item,) = [
        item for item in json.loads(port.get("runningpods/"))["items"] if item["metadata"]["namespace"] == space.name
    ]
    assert item["metadata"]["uid"] == here["metadata"]["uid"]
    assert sorted(each["name"] for each in item["spec"]["containers"]) == ["a", "b"]
    assert space.remote not in port.get("metrics/cadvisor")
    probes = {re.sub(r" \d+$", "", line) for line in direct("metrics/probes").splitlines() if 'pod="two"' in line}
    names = {space.remote: space.name, there["metadata"]["uid"]: here["metadata"]["uid"]}
    wanted = {re.sub("|".join(names), lambda match: names[match[0]], line) for line in probes}
    shown = {re.sub(r" \d+$", "", line) for line in port.get("metrics/probes").splitlines() if line[0] != "#"}
    assert {normal(line) for line in shown} == {normal(line) for line in wanted} != set()
    assert json.loads(port.get("configz"))["kubeletconfig"]["kind"] == "KubeletConfiguration"
    assert "vnode_kubelet_requests_total" in port.get("metrics")


def test_a_peers_metrics_api_is_enough(
    own_vnode: Callable[..., Vnode], new_space: Callable[..., Space], home: Cluster, real_peer: Cluster, tmp_path: Path
) -> None:
    name = "edge-rates"
    with MetricsServer(real_peer.plane):
        vnode = own_vnode(peer_config(name, real_peer)).start().wait_ready()
        space: Space = new_space(real_peer, name)
        space.create(pod("burns", name, containers=[shell(BUSY, resources=LIMITS)], terminationGracePeriodSeconds=0))
        space.wait_ready("burns", limit_s=60)
        there = ("-n", space.remote, "top", "pod", "--no-headers")
        eventually("the peer measures the Pod", lambda: real_peer.plane.kubectl(*there, check=False).stdout, 60)
        port = Port(home, tmp_path, name)

        def point() -> tuple[float, int]:
            found = re.search(r"^pod_cpu_usage_seconds_total\{.*\} (\S+) (\d+)$", port.get("metrics/resource"), re.M)
            assert found is not None, "not told yet"
            return float(found[1]), int(found[2])

        cpu_s, time_ms = eventually("the Pod is measured", point, 30)

        def later() -> tuple[float, int]:
            now = point()
            assert now[1] > time_ms, "not measured again yet"
            return now

        asked = vnode.metric("vnode_kube_requests_total", side=name, verb="get", resource="nodes")
        later_s, later_ms = eventually("a later measure is told", later, 40)
        assert 0.02 <= (later_s - cpu_s) / (later_ms - time_ms) * 1000 <= 0.26, "not what its limit lets it burn"
        assert vnode.metric("vnode_kube_requests_total", side=name, verb="get", resource="nodes") == asked
