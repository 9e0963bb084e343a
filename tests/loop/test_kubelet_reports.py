"""What a kubelet's port tells of all its Pods, against a peer that answers what a test wants."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from tests.builders import mirror_of, pod, running
from tests.loop.kubelet_port import kubelet
from vnode.kubelet import stats
from vnode.kubelet.request import Bound

API = "/apis/metrics.k8s.io/v1beta1/pods"
NODE = "/api/v1/nodes/{}/proxy/{}"
USED = """\
container_cpu_usage_seconds_total{{container="main",namespace="shop-home",pod="{0}"}} 2.5 1795502324742
container_memory_working_set_bytes{{container="main",namespace="shop-home",pod="{0}"}} 4096 1795502324742
container_cpu_usage_seconds_total{{container="main",namespace="theirs",pod="{0}"}} 9 1795502324742
container_memory_working_set_bytes{{container="main",namespace="theirs",pod="{0}"}} 8192 1795502324742
"""
PROBES = 'prober_probe_total{{namespace="{1}",pod="{0}",pod_uid="r1"}} 2\n'


def bound(name: str, node: str | None) -> Bound:
    local = pod(name, uid=f"u-{name}")
    if node is None:
        return Bound(local, None)
    mirror = mirror_of(local, status=running())
    placed = b'{"nodeName":"%b",' % node.encode() + mirror.raw_spec[1:]
    return Bound(local, type(mirror)(mirror.meta, placed, mirror.raw_status))


PODS = [bound("a", "node-1"), bound("b", "node-2"), bound("pending", None)]


@dataclass
class Peer:
    """Answers by path, and notes what it was asked; what it does not know is 404."""

    answers: dict[str, str | int | Callable[[], Awaitable[str]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append(request.path)
        answer = self.answers.get(request.path, 404)
        if isinstance(answer, int):
            return web.json_response({"message": "no"}, status=answer)
        return web.Response(text=answer if isinstance(answer, str) else await answer())


def api_list(*names: str) -> str:
    items = [
        {
            "metadata": {"name": name, "namespace": namespace},
            "timestamp": "2026-05-01T12:00:00Z",
            "window": "10s",
            "containers": [{"name": "main", "usage": {"cpu": "100m", "memory": "1Mi"}}],
        }
        for name in names
        for namespace in ("shop-home", "theirs")
    ]
    return json.dumps({"items": items})


def kubelets(path: str = "metrics/resource", text: str = USED) -> dict[str, str | int | Callable[[], Awaitable[str]]]:
    return {
        NODE.format("node-1", path): text.format("a", "shop-home") + text.format("stranger", "shop-home"),
        NODE.format("node-2", path): text.format("b", "shop-home") + text.format("b", "theirs"),
    }


async def test_a_crowd_that_asks_costs_the_peer_one_question_an_interval() -> None:
    async def slowly() -> str:
        await asyncio.sleep(0.05)
        return api_list("a", "b")

    peer = Peer({API: slowly})
    async with kubelet(peer.serve, PODS) as port:

        async def ask(path: str) -> str:
            async with port.get(path) as response:
                assert response.status == 200
                return await response.text()

        async with asyncio.TaskGroup() as group:
            paths = ["/metrics/resource", "/stats/summary", "/stats/summary?only_cpu_and_memory=true"] * 10
            tasks = [group.create_task(ask(path)) for path in paths]
    assert peer.asked == [API]
    text = tasks[0].result()
    assert 'container_cpu_usage_seconds_total{container="main",namespace="shop",pod="a"} 1 1777636800000' in text
    assert "theirs" not in text
    assert "shop-home" not in text
    summary = json.loads(tasks[1].result())
    assert [item["podRef"]["uid"] for item in summary["pods"]] == ["u-a", "u-b"]


async def test_without_a_metrics_api_the_nodes_that_run_our_pods_are_asked() -> None:
    peer = Peer(kubelets())
    async with kubelet(peer.serve, PODS) as port, port.get("/metrics/resource") as response:
        text = await response.text()
    assert sorted(peer.asked) == sorted([API, *kubelets()])
    shown = [line for line in text.splitlines() if line.startswith("pod_cpu")]
    assert shown == [
        f'pod_cpu_usage_seconds_total{{namespace="shop",pod="{name}"}} 2.5 1795502324742' for name in ("a", "b")
    ]
    assert "theirs" not in text
    assert "stranger" not in text


@pytest.mark.parametrize("answer", [403, 404, 503, "{", '{"items": []}'])
async def test_a_metrics_api_that_is_no_use_is_passed_over(answer: str | int) -> None:
    peer = Peer({API: answer, **kubelets()})
    async with kubelet(peer.serve, PODS) as port, port.get("/metrics/resource") as response:
        assert "resource_scrape_error 0" in await response.text()


async def test_one_silent_node_takes_only_its_own_pods_away() -> None:
    peer = Peer({**kubelets(), NODE.format("node-2", "metrics/resource"): 503})
    async with kubelet(peer.serve, PODS) as port, port.get("/metrics/resource") as response:
        text = await response.text()
    assert 'pod="a"' in text
    assert 'pod="b"' not in text
    assert "resource_scrape_error 0" in text


async def test_a_peer_that_tells_nothing_is_not_asked_by_each_who_wants_to_know() -> None:
    peer = Peer()
    async with kubelet(peer.serve, PODS) as port:
        for _ in range(5):
            async with port.get("/metrics/resource") as response:
                assert response.status == 200
                assert "resource_scrape_error 1" in await response.text()
            async with port.get("/stats/summary") as response:
                assert response.status == 500
    assert len(peer.asked) == 3


async def test_a_node_without_pods_has_usage_and_asks_nobody() -> None:
    peer = Peer()
    async with kubelet(peer.serve) as port:
        async with port.get("/metrics/resource") as response:
            lines = [line for line in (await response.text()).splitlines() if not line.startswith("#")]
        async with port.get("/pods") as response:
            assert await response.json() == {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": None}
        async with port.get("/metrics/cadvisor") as response:
            assert (response.status, await response.text()) == (200, "")
    assert peer.asked == []
    names = {line.split()[0]: float(line.split()[1]) for line in lines}
    assert names.keys() == {"node_cpu_usage_seconds_total", "node_memory_working_set_bytes", "resource_scrape_error"}
    assert names["node_cpu_usage_seconds_total"] > 0
    assert names["node_memory_working_set_bytes"] > 0


async def test_an_answer_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "MAX_ANSWER", 1000)
    peer = Peer({API: api_list("a") + " " * 1000, **kubelets()})
    async with kubelet(peer.serve, PODS) as port, port.get("/metrics/resource") as response:
        assert 'pod="b"' in await response.text()


@pytest.mark.parametrize(("told", "untold"), [("probes", "cadvisor"), ("cadvisor", "probes")])
async def test_what_the_peers_kubelets_alone_tell_comes_under_homes_names_and_is_nothing_where_we_may_not_ask(
    told: str, untold: str
) -> None:
    peer = Peer(kubelets(f"metrics/{told}", PROBES))
    async with kubelet(peer.serve, PODS) as port:
        for _ in range(2):
            async with port.get(f"/metrics/{told}") as response:
                assert (await response.text()).splitlines() == [
                    f'prober_probe_total{{namespace="shop",pod="{name}",pod_uid="u-{name}"}} 2' for name in ("a", "b")
                ]
        async with port.get(f"/metrics/{untold}") as response:
            assert (response.status, await response.text()) == (200, "")
    assert len(peer.asked) == 4


async def test_the_pods_of_the_node_are_listed_as_a_kubelet_lists_them() -> None:
    many = [bound(f"p{number}", "node-1") for number in range(250)]
    async with kubelet(Peer().serve, [*PODS, *many]) as port:
        async with port.get("/pods") as response:
            assert response.content_type == "application/json"
            items = (await response.json())["items"]
        async with port.get("/runningpods/") as response:
            runs = (await response.json())["items"]
        async with port.get("/configz") as response:
            assert (await response.json())["kubeletconfig"]["kind"] == "KubeletConfiguration"
        async with port.get("/metrics") as response:
            assert "vnode_kubelet_requests_total" in await response.text()
        async with port.get("/metrics/slis") as response:
            assert "kubernetes_healthcheck" in await response.text()
        async with port.session.post(
            f"https://127.0.0.1:{port.port}/pods", headers={"Authorization": "Bearer good"}
        ) as response:
            assert (response.status, response.headers["Allow"]) == (405, "GET")
    assert [item["metadata"]["uid"] for item in items] == [each.local.uid for each in [*PODS, *many]]
    assert items[0]["spec"] == PODS[0].local.spec()
    assert [item["metadata"]["name"] for item in runs] == ["a", "b", *(f"p{number}" for number in range(250))]
    assert runs[0]["spec"]["containers"] == [{"name": "main", "image": "app:1", "resources": {}}]
