"""A kubelet port in a thread of its own, behind a real apiserver that verifies kubelets.

The Node, its Pods and the mirror are made by hand: nothing of vnode but `vnode.kubelet` and its clients runs. vnode's
own credential has the rights listed in `VNODE_RIGHTS` and no more.
"""

import asyncio
import contextlib
import http.client
import json
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.expect import eventually
from tests.world.accounts import kubeconfig
from vnode.devcluster.build import Binaries
from vnode.devcluster.controlplane import ControlPlane
from vnode.devcluster.pki import Pair
from vnode.kube.client import Client
from vnode.kube.credentials import from_kubeconfig
from vnode.kube.objects import Key, utc_now
from vnode.kubelet.auth import Door
from vnode.kubelet.authority import ClientAuthority
from vnode.kubelet.certificate import ServingCertificate
from vnode.kubelet.reports import Reports
from vnode.kubelet.request import Located
from vnode.kubelet.server import KubeletServer
from vnode.kubelet.stats import Stats
from vnode.telemetry.metrics import Metrics

NODE = "edge"
LOGS = "/containerLogs/shop/web-1/app"
UID = "u-1"
_RBAC = "rbac.authorization.k8s.io"


def cluster_role(name: str, group: str, resource: str, *verbs: str) -> dict[str, Any]:
    """A ClusterRole of one rule."""
    rule = {"apiGroups": [group], "resources": [resource], "verbs": list(verbs)}
    return {"apiVersion": f"{_RBAC}/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": [rule]}


def binding(role: str, subject: dict[str, str], *, kind: str = "ClusterRole", namespace: str = "") -> dict[str, Any]:
    """`role` for `subject`, everywhere or in one namespace."""
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "RoleBinding" if namespace else "ClusterRoleBinding",
        "metadata": {"name": f"{role}-{subject['name']}", **({"namespace": namespace} if namespace else {})},
        "roleRef": {"apiGroup": _RBAC, "kind": kind, "name": role},
        "subjects": [subject],
    }


def user(name: str) -> dict[str, str]:
    """An RBAC subject."""
    return {"apiGroup": _RBAC, "kind": "User", "name": name}


def account(name: str) -> dict[str, str]:
    """An RBAC subject: a ServiceAccount in `shop`."""
    return {"kind": "ServiceAccount", "name": name, "namespace": "shop"}


def pod(namespace: str, name: str, node: str) -> dict[str, Any]:
    """A Pod bound to `node` from the start."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "nodeName": node,
            "containers": [{"name": "app", "image": "vnode.test/busybox:1", "command": ["sh", "-c", "sleep 3600"]}],
            "tolerations": [{"operator": "Exists"}],
            "terminationGracePeriodSeconds": 1,
        },
    }


VNODE_RIGHTS = [
    cluster_role(
        "vnode-csr", "certificates.k8s.io", "certificatesigningrequests", "create", "get", "list", "watch", "delete"
    ),
    binding("vnode-csr", user("vnode")),
    binding("system:auth-delegator", user("vnode")),
    binding("extension-apiserver-authentication-reader", user("vnode"), kind="Role", namespace="kube-system"),
]


def namespace(name: str) -> dict[str, Any]:
    """A Namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


HOME = [
    namespace("shop"),
    {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}},
    *(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": "shop"}}
        for name in ("reader", "nobody")
    ),
    cluster_role("get-proxy", "", "nodes/proxy", "get"),
    cluster_role("get-healthz", "", "nodes/healthz", "get"),
    binding("get-proxy", account("reader")),
    binding("get-proxy", user("jane")),
    binding("get-healthz", user("joe")),
    *VNODE_RIGHTS,
]


def apply(plane: ControlPlane, *objects: dict[str, Any]) -> None:
    """Create or change them."""
    plane.kubectl("apply", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))


class Port:
    """The server in a loop and thread of its own, for kubectl is waited for in the test's.

    It is the kubelet of the Pods `shop/web-1` and `shop/ghost`, whose mirrors are to be of that name in `remote`.
    `client_ca` is the file of that setting.
    """

    def __init__(
        self, home: ControlPlane, peer: ControlPlane, *, remote: str = "shop-home", client_ca: str = ""
    ) -> None:
        self._home = home
        self._peer = peer
        self._remote = remote
        self._client_ca = client_ca
        self.metrics = Metrics()
        self.port = 0
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()))
        self._open = threading.Event()
        self._ended = threading.Event()

    async def _main(self) -> None:
        self.loop = asyncio.get_running_loop()
        home = Client(from_kubeconfig(str(self._home.kubeconfig_for("vnode"))), "home", self.metrics)
        peer = Client(from_kubeconfig(str(kubeconfig(self._peer))), "peer-a", self.metrics)

        def locate(namespace: str, pod: str) -> Located | None:
            ours = namespace == "shop" and pod in ("web-1", "ghost")
            return Located(peer, Key(self._remote, pod), UID) if ours else None

        self.authority = ClientAuthority(home, self._client_ca)
        server = KubeletServer(
            node=NODE,
            address="127.0.0.1",
            port=0,
            door=Door(home, NODE, self.authority),
            locate=locate,
            reports=Reports(NODE, lambda: (), Stats(peer, "", lambda: (), utc_now), self.metrics, lambda: ()),
            certificate=ServingCertificate(home, NODE, ["127.0.0.1"]),
            metrics=self.metrics,
        )
        try:
            async with asyncio.TaskGroup() as group:
                follower = group.create_task(self.authority.run())
                self._task = group.create_task(server.run(self._started))
                await asyncio.wait({self._task})
                self._ended.set()
                follower.cancel()
        finally:
            await home.close()
            await peer.close()
            await asyncio.sleep(0.1)  # aiohttp does not wait for its TLS transports

    def _started(self, port: int) -> None:
        self.port = port
        self._open.set()

    def start(self) -> None:
        """Return when the port is open."""
        self._thread.start()
        assert self._open.wait(30)

    @property
    def running(self) -> bool:
        """False once it has ended."""
        return self._thread.is_alive()

    def stop(self, limit_s: float = 10) -> None:
        """Cancel the server; fails when it has not ended in time."""
        self.loop.call_soon_threadsafe(self._task.cancel)
        assert self._ended.wait(limit_s), "the server did not end"
        self._thread.join(10)
        assert not self._thread.is_alive()

    def answers(self, route: str, code: int) -> float:
        """How many requests were answered so."""
        labels = {"node": NODE, "route": route, "code": str(code)}
        return self.metrics.registry.get_sample_value("vnode_kubelet_requests_total", labels) or 0.0

    def connect(self, client: Pair | None, directory: Path) -> http.client.HTTPSConnection:
        """A connection as any program makes it, maybe with a client certificate. Does not verify the port's own."""
        return connect("127.0.0.1", self.port, client, directory)

    def ask(self, path: str, *, method: str = "GET", token: str = "") -> tuple[int, str]:
        """Status and text of one request, with a bearer token or nothing. The path goes out as it is."""
        with contextlib.closing(self.connect(None, Path())) as connection:
            return ask(connection, path, method=method, token=token)


def connect(address: str, port: int, client: Pair | None, directory: Path) -> http.client.HTTPSConnection:
    """As `Port.connect`, to any kubelet's port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if client is not None:
        context.load_cert_chain(*client.write(directory, "client"))
    return http.client.HTTPSConnection(address, port, timeout=30, context=context)


def ask(connection: http.client.HTTPSConnection, path: str, *, method: str = "GET", token: str = "") -> tuple[int, str]:
    """Status and text of one request on an open connection."""
    connection.putrequest(method, path, skip_accept_encoding=True)
    if token:
        connection.putheader("Authorization", f"Bearer {token}")
    connection.endheaders()
    response = connection.getresponse()
    return response.status, response.read().decode()


@dataclass(frozen=True)
class World:
    """Home with the port's Node and Pods, and the peer with the one mirror there is."""

    port: Port
    home: ControlPlane
    peer: ControlPlane

    def token(self, name: str) -> str:
        """A token of one of the ServiceAccounts."""
        return self.home.kubectl("create", "token", name, "-n", "shop").stdout.strip()


@contextlib.contextmanager
def port_world(binaries: Binaries, directory: Path, peer: ControlPlane, *, kubelet_ca: bool) -> Iterator[World]:
    """A home of its own, with the port's Node in it; the mirror runs on the first node of `peer`."""
    with ControlPlane(f"ports-{directory.name}", directory, binaries, kubelet_ca=kubelet_ca) as home:
        apply(home, *HOME)
        port = Port(home, peer)
        port.start()
        try:
            status = {
                "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": port.port}},
            }
            patch = json.dumps({"status": status})
            home.kubectl("patch", "node", NODE, "--subresource=status", "--type=merge", "-p", patch)
            apply(peer, namespace("shop-home"))
            wait_for_account(home, "shop")
            wait_for_account(peer, "shop-home")
            apply(home, *(pod("shop", name, NODE) for name in ("web-1", "ghost", "stranger")))
            node = json.loads(peer.kubectl("get", "nodes", "-o", "json").stdout)["items"][0]["metadata"]["name"]
            apply(peer, pod("shop-home", "web-1", node))
            peer.kubectl("wait", "--for=condition=Ready", "pod/web-1", "-n", "shop-home", "--timeout=50s")
            yield World(port, home, peer)
        finally:
            port.stop()
            peer.kubectl("delete", "namespace", "shop-home", timeout=120)


def wait_for_account(plane: ControlPlane, name: str) -> None:
    """Return when Pods can be made in the namespace."""
    there = ("get", "serviceaccount", "default", "-n", name)
    eventually(f"Pods can be made in {name}", lambda: plane.kubectl(*there, check=False).returncode == 0)
