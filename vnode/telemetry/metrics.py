"""The process's metrics, and the loopback admin port that serves them with `/healthz` and `/readyz`.

One `Metrics` is made by `app.build` and handed down; labels are bounded (peer, side, verb, kind, outcome), never
a Pod's name. README's metrics table lists every series here.
"""

import asyncio
from collections.abc import Callable

from aiohttp import web
from prometheus_client import (
    GC_COLLECTOR,
    PLATFORM_COLLECTOR,
    PROCESS_COLLECTOR,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

_HOP_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 300)


class Metrics:
    """Every series vnode exports, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        for collector in (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR):
            registry.register(collector)
        self.kube_requests = Counter(
            "vnode_kube_requests_total",
            "Requests to apiservers.",
            ["side", "verb", "resource", "code"],
            registry=registry,
        )
        self.kube_events = Counter(
            "vnode_kube_watch_events_total", "Watch events received.", ["side", "resource"], registry=registry
        )
        self.kube_lists = Counter(
            "vnode_kube_lists_total",
            "Lists started: first ones and those after a lost watch.",
            ["side", "resource"],
            registry=registry,
        )
        self.queue_depth = Gauge(
            "vnode_runtime_queue_depth", "Keys waiting for a worker.", ["controller", "peer"], registry=registry
        )
        self.queue_retries = Counter(
            "vnode_runtime_retries_total",
            "Keys put back into a queue after a failed attempt.",
            ["controller", "peer", "reason"],
            registry=registry,
        )
        self.bugs = Counter(
            "vnode_runtime_bugs_total",
            "Exceptions nobody foresaw; each has a traceback in the log.",
            ["where"],
            registry=registry,
        )
        self.loop_lag = Histogram(
            "vnode_runtime_loop_lag_seconds",
            "How late the event loop ran a timer.",
            buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1),
            registry=registry,
        )
        self.hop_down = Histogram(
            "vnode_pods_hop_down_seconds",
            "From a Pod seen bound at home to created at the peer.",
            ["peer"],
            buckets=_HOP_BUCKETS,
            registry=registry,
        )
        self.hop_up = Histogram(
            "vnode_pods_hop_up_seconds",
            "From a change seen at the peer to its status at home.",
            ["peer"],
            buckets=_HOP_BUCKETS,
            registry=registry,
        )
        self.pods = Gauge(
            "vnode_pods_pods", "Pods bound to the virtual node, and their mirrors.", ["peer", "side"], registry=registry
        )
        self.peer_up = Gauge("vnode_node_peer_up", "1 while the peer answers its probe.", ["peer"], registry=registry)
        self.probe_seconds = Histogram(
            "vnode_node_probe_seconds", "Round trip of the peer's probe.", ["peer"], registry=registry
        )
        self.kubelet_requests = Counter(
            "vnode_kubelet_requests_total",
            "Requests to the nodes' kubelet ports.",
            ["node", "route", "code"],
            registry=registry,
        )

    def forget(self, peer: str) -> None:
        """Drop the series of a peer that is served no more, and with them what they held of it."""
        for metric in self.queue_depth, self.queue_retries, self.hop_down, self.hop_up, self.pods, self.peer_up:
            metric.remove_by_labels({"peer": peer})
        self.probe_seconds.remove_by_labels({"peer": peer})
        for metric in self.kube_requests, self.kube_events, self.kube_lists:
            metric.remove_by_labels({"side": peer})

    def render(self) -> bytes:
        """The exposition text."""
        return generate_latest(self.registry)


async def watch_loop_lag(metrics: Metrics, interval_s: float = 1.0) -> None:
    """Measure for ever how late timers run; a high value means something blocks the loop."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + interval_s
        await asyncio.sleep(interval_s)
        metrics.loop_lag.observe(max(0.0, loop.time() - due))


class AdminServer:
    """Plain HTTP on loopback: `/healthz` (the loop turns), `/readyz` (every peer's stores are filled), `/metrics`."""

    def __init__(self, metrics: Metrics, address: str, port: int, unready: Callable[[], list[str]]) -> None:
        self._metrics = metrics
        self._address = address
        self._port = port
        self._unready = unready
        self.port = port

    async def run(self, started: Callable[[], None]) -> None:
        """Serve until cancelled. `started` is called once the port is open (`self.port` is then the real one).

        Raises OSError when the port cannot be had.
        """
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._serve_metrics)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            site = web.TCPSite(runner, self._address, self._port)
            await site.start()
            self.port = runner.addresses[0][1]
            started()
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        reasons = self._unready()
        return web.Response(status=503 if reasons else 200, text="\n".join(reasons or ["ok"]) + "\n")

    async def _serve_metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.render(), headers={"Content-Type": CONTENT_TYPE_LATEST})
