"""`burst`: one Deployment of N Pods, straight into the peer, then through the virtual node; and one Pod at a time."""

import asyncio
import contextlib
import json
import statistics
import time
from collections.abc import AsyncIterator
from typing import Any

from tests.bench.lab import Lab, lab
from tests.bench.watching import Watch
from vnode.devcluster.controlplane import ControlPlane

LIMIT_S = 900.0


def burst(pods: int, singles: int) -> dict[str, Any]:
    """Run it all and return the figures."""
    with lab() as running:
        return asyncio.run(_burst(running, pods, singles))


async def _burst(running: Lab, pods: int, singles: int) -> dict[str, Any]:
    direct = await _direct(running, pods)
    through = await _through(running, pods)
    result = {"scenario": "burst", "pods": pods, "direct": direct, "vnode": through}
    result["ratio"] = {name: round(through[name] / direct[name], 2) for name in ("ready_s", "delete_s")}
    if singles:
        result["rest"] = await _singles(running, singles)
    return result


async def _direct(running: Lab, pods: int) -> dict[str, Any]:
    await _apply(running.peer, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "direct"}})
    async with _watching(running.peer, "peer", "direct") as watch:
        return await _cycle(running.peer, "direct", pods, watch, {})


async def _through(running: Lab, pods: int) -> dict[str, Any]:
    await _apply(running.home, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bench"}})
    vnode = running.vnode
    cpu, requests = vnode.cpu_s(), vnode.requests()
    async with (
        _watching(running.home, "home", "bench") as home,
        _watching(running.peer, "peer", "bench-home") as peer,
    ):
        figures = await _cycle(running.home, "bench", pods, home, {"vnode.dev/peer": "edge"})
        await peer.until(lambda stamps: len(stamps.gone) >= len(stamps.added), LIMIT_S)
        figures["hop_down_s"] = _spread(home.stamps.bound, peer.stamps.added)
        figures["hop_up_s"] = _spread(peer.stamps.ready, home.stamps.ready)
    await asyncio.to_thread(_settle, running)
    after = vnode.requests()
    figures["cpu_s"] = round(vnode.cpu_s() - cpu, 2)
    figures["peak_rss_mib"] = round(vnode.peak_rss_mib(), 1)
    spent = {name: count - requests[name] for name, count in after.items() if count > requests[name]}
    figures["requests_per_pod"] = {name: round(count / pods, 3) for name, count in sorted(spent.items())}
    return figures


def _settle(running: Lab) -> None:
    """Return when vnode has sent its last request for the burst."""
    before = -1
    while before != (before := running.vnode.requests()["home delete pods"]):
        time.sleep(0.5)


async def _cycle(
    cluster: ControlPlane, namespace: str, pods: int, watch: Watch, selector: dict[str, str]
) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    start = loop.time()
    await _apply(cluster, _deployment(namespace, pods, selector))
    await watch.until(lambda stamps: len(stamps.ready) >= pods, LIMIT_S)
    ready = max(watch.stamps.ready.values()) - start
    deleting = loop.time()
    await asyncio.to_thread(cluster.kubectl, "delete", "deployment", "burst", "-n", namespace, "--wait=false")
    await watch.until(lambda stamps: len(stamps.gone) >= pods, LIMIT_S)
    gone = max(watch.stamps.gone.values()) - deleting
    return {
        "ready_s": round(ready, 2),
        "delete_s": round(gone, 2),
        "added_to_ready_s": _spread(watch.stamps.added, watch.stamps.ready),
    }


async def _singles(running: Lab, count: int) -> dict[str, Any]:
    """One Pod at a time, each only when the one before is Ready."""
    async with (
        _watching(running.home, "home", "bench") as home,
        _watching(running.peer, "peer", "bench-home") as peer,
    ):
        for number in range(count):
            name = f"single-{number}"
            spec = {**_pod_spec({"vnode.dev/peer": "edge"})}
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "bench"}, "spec": spec}
            await _apply(running.home, pod)
            await home.until(lambda stamps, name=name: name in stamps.ready, 60)  # type: ignore[misc]
        down, up = _spread(home.stamps.bound, peer.stamps.added), _spread(peer.stamps.ready, home.stamps.ready)
    return {"pods": count, "hop_down_s": down, "hop_up_s": up}


@contextlib.asynccontextmanager
async def _watching(cluster: ControlPlane, side: str, namespace: str) -> AsyncIterator[Watch]:
    watch = Watch(str(cluster.kubeconfig), side, namespace)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(watch.run())
        await asyncio.sleep(1.0)  # listed, and watching
        yield watch
        task.cancel()


async def _apply(cluster: ControlPlane, manifest: dict[str, Any]) -> None:
    await asyncio.to_thread(cluster.kubectl, "create", "-f", "-", input=json.dumps(manifest))


def _deployment(namespace: str, pods: int, selector: dict[str, str]) -> dict[str, Any]:
    labels = {"app": "burst"}
    template = {"metadata": {"labels": labels}, "spec": _pod_spec(selector)}
    spec = {"replicas": pods, "selector": {"matchLabels": labels}, "template": template}
    metadata = {"name": "burst", "namespace": namespace}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}


def _pod_spec(selector: dict[str, str]) -> dict[str, Any]:
    return {
        "nodeSelector": selector,
        "tolerations": [{"key": "vnode.dev/peer", "operator": "Exists"}],
        "terminationGracePeriodSeconds": 1,
        "containers": [{"name": "main", "image": "vnode.test/busybox:1", "imagePullPolicy": "IfNotPresent"}],
    }


def _spread(start: dict[str, float], end: dict[str, float]) -> dict[str, float]:
    return spread([max(0.0, end[name] - start[name]) for name in start.keys() & end.keys()])


def spread(times: list[float]) -> dict[str, float]:
    """Percentiles, in seconds."""
    cuts = statistics.quantiles(times, n=100, method="inclusive") if len(times) > 1 else times * 99
    return {f"p{percent}": round(cuts[percent - 1], 4) for percent in (50, 95, 99)}
