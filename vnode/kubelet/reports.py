"""A kubelet on itself and all its Pods: `/pods`, `/runningpods/`, `/stats/summary`, `/healthz`, `/metrics`, `/configz`.

Read-only, and of this node's Pods under home's names only. Answers look as those of k8s.io/kubernetes v1.37
pkg/kubelet/server/server.go. Called by `server`, behind the door.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

import msgspec
from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from vnode.errors import Unavailable
from vnode.kube.objects import Object
from vnode.kubelet.auth import ALLOW_LIFE_S, DENY_LIFE_S, TOKEN_LIFE_S
from vnode.kubelet.health import health, health_metrics
from vnode.kubelet.measures import running_names
from vnode.kubelet.request import Bound, BoundPods, Refused
from vnode.kubelet.stats import Stats
from vnode.kubelet.usage_formats import resource_metrics, summary
from vnode.telemetry.metrics import Metrics

JSON: Final = {"Content-Type": "application/json"}
TEXT: Final = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
PODS_AT_ONCE: Final = 100
PIECE: Final = 256 * 2**10
WRITE_LIMIT_S: Final = 120.0

_CONFIG: Final = msgspec.json.encode(
    {
        "kubeletconfig": {
            "kind": "KubeletConfiguration",
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "enableServer": True,
            "authentication": {
                "x509": {},
                "webhook": {"enabled": True, "cacheTTL": f"{TOKEN_LIFE_S:.0f}s"},
                "anonymous": {"enabled": False},
            },
            "authorization": {
                "mode": "Webhook",
                "webhook": {
                    "cacheAuthorizedTTL": f"{ALLOW_LIFE_S:.0f}s",
                    "cacheUnauthorizedTTL": f"{DENY_LIFE_S:.0f}s",
                },
            },
            "enableDebuggingHandlers": True,
            "enableSystemLogHandler": False,
            "enableProfilingHandler": False,
            "enableDebugFlagsHandler": False,
            "nodeStatusReportFrequency": "5m0s",
            "nodeLeaseDurationSeconds": 40,
            "registerNode": True,
        }
    }
)


class Reports:
    """Answers for one node. `problems` gives why its Pods are not served. Constructing asks nothing."""

    def __init__(
        self, node: str, pods: BoundPods, stats: Stats, metrics: Metrics, problems: Callable[[], Sequence[str]]
    ) -> None:
        self._node = node
        self._problems = problems
        self._pods = pods
        self._stats = stats
        self._metrics = metrics

    async def serve(self, request: web.BaseRequest, report: str) -> web.StreamResponse:
        """Give the answer to one of `request.REPORTS`. Raises `Refused`, or TimeoutError for a reader that is stuck."""
        match report:
            case "pods":
                return await _send_list(request, (_pod(bound.local) for bound in list(self._pods())))
            case "runningpods":
                return await _send_list(request, _running(list(self._pods())))
            case "configz":
                return await _send(request, _CONFIG, JSON)
            case "stats/summary":
                usage = await self._stats.usage()
                if usage.failed:
                    raise Refused(500, "Internal Error: the peer tells nothing of its Pods")
                return await _send(request, await asyncio.to_thread(summary, usage, self._node), JSON)
            case "metrics":
                return await _send(request, self._metrics.render(), {"Content-Type": CONTENT_TYPE_LATEST})
            case _ if report.startswith("metrics/"):
                return await _send(request, await self._exposition(report), TEXT)
            case _:
                return self._health(request, report)

    async def _exposition(self, report: str) -> bytes:
        match report:
            case "metrics/resource":
                usage = await self._stats.usage()
                return await asyncio.to_thread(resource_metrics, usage)
            case "metrics/slis":
                return health_metrics(self._problems())
            case _:
                try:
                    return await self._stats.text(report)
                except Unavailable as error:
                    raise Refused(500, error.message) from error

    def _health(self, request: web.BaseRequest, report: str) -> web.Response:
        check = report.removeprefix("healthz").removeprefix("/")
        code, text = health(check, self._problems(), verbose="verbose" in request.rel_url.query)
        return web.Response(status=code, text=text, headers={"X-Content-Type-Options": "nosniff"})


def _pod(local: Object) -> bytes:
    """A Pod as an item of a list."""
    metadata = {name: value for name, value in msgspec.to_builtins(local.meta).items() if value}
    # A kubelet says so of every Pod it has from an apiserver.
    metadata["annotations"] = {**local.meta.annotations, "kubernetes.io/config.source": "api"}
    parts: dict[str, Any] = {"metadata": metadata}
    if local.raw_spec:
        parts["spec"] = msgspec.Raw(local.raw_spec)
    if local.raw_status:
        parts["status"] = msgspec.Raw(local.raw_status)
    return msgspec.json.encode(parts)


def _running(pods: Iterable[Bound]) -> Iterator[bytes]:
    """Pods whose mirror runs, with the containers that do, as a container runtime knows them."""
    for local, remote in pods:
        if remote is None or remote.leaving or not (running := running_names(local, remote)):
            continue
        meta = {"name": local.meta.name, "namespace": local.meta.namespace, "uid": local.uid}
        containers = [{"name": name, "image": image, "resources": {}} for name, image in running]
        yield msgspec.json.encode({"metadata": meta, "spec": {"containers": containers}, "status": {}})


async def _send(request: web.BaseRequest, body: bytes, headers: Mapping[str, str]) -> web.StreamResponse:
    """An answer that may be megabytes: who does not read it must not hold it for long."""
    response = web.StreamResponse(headers=headers)
    response.content_length = len(body)
    async with asyncio.timeout(WRITE_LIMIT_S):
        await response.prepare(request)
        # In pieces: under TLS a single write is taken whole, however long, and nothing tells that it is stuck.
        for start in range(0, 0 if request.method == "HEAD" else len(body), PIECE):
            await response.write(body[start : start + PIECE])
        await response.write_eof()
    return response


async def _send_list(request: web.BaseRequest, items: Iterator[bytes]) -> web.StreamResponse:
    """A PodList, some Pods at a time: all of them may be tens of megabytes. `items` of none is null."""
    response = web.StreamResponse(headers=JSON)
    async with asyncio.timeout(WRITE_LIMIT_S):
        await response.prepare(request)
        batch = list(islice(items, PODS_AT_ONCE))
        text, end = b'{"kind":"PodList","apiVersion":"v1","metadata":{},"items":', b"]}" if batch else b"null}"
        separator = b"["
        while batch:
            await response.write(text + separator + b",".join(batch))
            text, separator = b"", b","
            await asyncio.sleep(0)
            batch = list(islice(items, PODS_AT_ONCE))
        await response.write(text + end)
        await response.write_eof()
    return response
