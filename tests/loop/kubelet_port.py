"""A kubelet port between bytes we make: apiservers that answer what a test wants, on real sockets in one loop.

For what real apiservers do not do on demand; those are in `tests/world/test_kubelet_server.py` and `…_streams.py`.
"""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

from vnode.kube.client import Client
from vnode.kube.credentials import Connection
from vnode.kube.objects import Key, utc_now
from vnode.kubelet.auth import Door
from vnode.kubelet.authority import ClientAuthority
from vnode.kubelet.certificate import ServingCertificate
from vnode.kubelet.reports import Reports
from vnode.kubelet.request import Bound, Located
from vnode.kubelet.server import KubeletServer
from vnode.kubelet.stats import Stats
from vnode.telemetry.metrics import Metrics

LOGS = "/containerLogs/shop/web-1/app"
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Plain:
    """Credentials of an apiserver without TLS; a new token for each that is refused."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._refused = 0

    async def current(self) -> Connection:
        return Connection(self._server, None, {"Authorization": f"Bearer {self._refused}"})

    def rejected(self, connection: Connection) -> None:
        self._refused += 1


@contextlib.asynccontextmanager
async def apiserver(handler: Handler, metrics: Metrics) -> AsyncIterator[Client]:
    runner = web.ServerRunner(web.Server(handler, handler_cancellation=True), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    client = Client(Plain(f"http://127.0.0.1:{runner.addresses[0][1]}"), "peer", metrics)
    try:
        yield client
    finally:
        await client.close()
        await runner.cleanup()


def home(reviews: list[str]) -> Handler:
    """An apiserver that knows the token `good`, allows everything, and lets vnode do nothing else."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        kind = request.path.rpartition("/")[2]
        if kind not in ("tokenreviews", "subjectaccessreviews"):
            return web.json_response({"message": f"{kind} is forbidden", "reason": "Forbidden"}, status=403)
        reviews.append(kind)
        spec = json.loads(await request.read())["spec"]
        if kind == "tokenreviews":
            known = spec["token"] == "good"
            return web.json_response({"status": {"authenticated": known, "user": {"username": "jane"}}})
        return web.json_response({"status": {"allowed": True}})

    return answer


@dataclass
class Kubelet:
    port: int
    session: aiohttp.ClientSession
    task: "asyncio.Task[None]"
    metrics: Metrics
    reviews: list[str] = field(default_factory=list)

    def get(self, path: str = LOGS, token: str = "good") -> "aiohttp.client._RequestContextManager":
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return self.session.get(f"https://127.0.0.1:{self.port}{path}", headers=headers)


@contextlib.asynccontextmanager
async def kubelet(peer_handler: Handler, pods: Sequence[Bound] = ()) -> AsyncIterator[Kubelet]:
    metrics = Metrics()
    async with apiserver(peer_handler, metrics) as at_peer, kubelet_of(at_peer, metrics, pods) as port:
        yield port


def reports_of(at_peer: Client, pods: Sequence[Bound], metrics: Metrics) -> Reports:
    """What the node `edge` tells of `pods`."""
    return Reports(
        "edge", lambda: pods, Stats(at_peer, "vnode.dev/node=edge", lambda: pods, utc_now), metrics, lambda: ()
    )


def trusting() -> ssl.SSLContext:
    """What takes every certificate."""
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
    return trust


@contextlib.asynccontextmanager
async def kubelet_of(at_peer: Client, metrics: Metrics, pods: Sequence[Bound] = ()) -> AsyncIterator[Kubelet]:
    reviews, trust = list[str](), trusting()
    async with (
        apiserver(home(reviews), metrics) as at_home,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust)) as session,
        asyncio.TaskGroup() as group,
    ):
        started: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        server = KubeletServer(
            node="edge",
            address="127.0.0.1",
            port=0,
            door=Door(at_home, "edge", ClientAuthority(at_home)),
            locate=lambda _, pod: Located(at_peer, Key("shop-home", pod), "u-1"),
            reports=reports_of(at_peer, pods, metrics),
            certificate=ServingCertificate(at_home, "edge", ["127.0.0.1"]),
            metrics=metrics,
        )
        task = group.create_task(server.run(started.set_result))
        yield Kubelet(await started, session, task, metrics, reviews)
        task.cancel()
