"""The door table: who gets which answer at each path of a kubelet's port; and how to ask a port so.

`test_kubelet_door` asks ours and a real kubelet's. Answers that are a kubelet's too were seen at k8s.io/kubernetes
v1.37.2.
"""

import base64
import contextlib
import http.client
import json
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from tests.world.kubelet_port import LOGS, account, ask, binding, cluster_role, connect, namespace, user
from vnode.devcluster.controlplane import ControlPlane
from vnode.devcluster.pki import Authority, Pair

EXEC = "/exec/shop/web-1/app?command=id&output=1"
CPU = "/stats/summary?only_cpu_and_memory=true"  # for the rest the lab's kubelet misses its file system

# Verb and subresources of `nodes`, and which nodes ("" all).
RIGHTS = {
    "nobody": ("get", "spec", ""),
    "neighbour": ("*", "proxy metrics stats log pods healthz configz", "another-node"),
    "stats": ("get", "stats", ""),
    "reader": ("get", "proxy", ""),
    "proxy": ("*", "proxy", ""),
    "admin": ("*", "proxy metrics stats log pods healthz configz checkpoint statusz", ""),
}


class Row(NamedTuple):
    """What `stats`, `reader`, `proxy` and `admin` get. Where a kubelet differs, what it gives them, or everybody.

    Where it does not, its refusals are the same word for word.
    """

    request: str
    answers: str
    kubelet: str = ""


TABLE = [
    Row("GET /healthz", "403 200 200 200"),
    Row("GET /healthz?verbose", "403 200 200 200"),
    Row("GET /healthz/ping", "403 200 200 200"),
    Row("GET /healthz/log", "403 200 200 200"),
    Row("GET /healthz/syncloop", "403 200 200 200"),
    Row("POST /healthz", "403 403 200 200"),
    Row("GET /metrics", "403 403 403 200"),
    Row("POST /metrics", "403 403 403 200"),
    Row("OPTIONS /metrics", "403 403 403 200"),
    Row("GET /metrics/resource", "403 403 403 200"),
    Row("GET /metrics/probes", "403 403 403 200"),
    Row("GET /metrics/cadvisor", "403 403 403 200"),
    Row("HEAD /metrics/cadvisor", "403 403 403 200"),
    Row("GET /metrics/slis", "403 403 403 200"),
    Row(f"GET {CPU}", "200 403 403 200"),
    Row(f"POST {CPU}", "403 403 403 200"),
    Row(f"PUT {CPU}", "403 403 403 405"),
    Row("GET /stats/", "404 403 403 404"),
    Row("GET /stats/container", "404 403 403 404"),
    Row("GET /pods", "403 200 200 200"),
    Row("GET /pods/", "403 200 200 200"),
    Row("HEAD /pods", "403 403 405 405"),
    Row("POST /pods", "403 403 405 405"),
    Row("DELETE /pods", "403 403 405 405"),
    Row("GET /pods/shop", "403 404 404 404"),
    Row("GET /runningpods/", "403 200 200 200"),
    Row("POST /runningpods/", "403 403 405 405"),
    Row("GET /configz", "403 200 200 200"),
    Row("POST /configz", "403 403 200 200"),
    # Logs: of our Pods; without, with a wrong, with too many names; of another node's Pod, of another namespace.
    Row(f"GET {LOGS}?tailLines=0", "403 200 200 200"),
    Row(f"HEAD {LOGS}", "403 403 405 405"),
    Row(f"POST {LOGS}", "403 403 405 405"),
    Row(f"GET {LOGS}?tailLines=x", "403 400 400 400"),
    Row(f"GET {LOGS}?tailLines=-1", "403 422 422 422"),
    Row("GET /containerLogs", "403 404 404 404"),
    Row("GET /containerLogs/shop/web-1", "403 404 404 404"),
    Row("GET /containerLogs/shop/web-1/", "403 404 404 404"),
    Row(f"GET {LOGS}/more", "403 404 404 404"),
    Row(f"GET {LOGS}/", "403 404 404 404", kubelet="403 200 200 200"),
    Row("GET /containerLogs/shop/stranger/app", "403 404 404 404"),
    Row("GET /containerLogs/default/web-1/app", "403 404 404 404"),
    Row(f"GET /containerLogs/shop/{'x' * 300}/app", "403 404 404 404"),
    # Streams: `get` on nodes/proxy runs commands at a kubelet, by WebSocket; here it takes `create`. Who may gets to
    # hear that it takes an upgrade, too.
    Row(f"GET {EXEC}", "403 403 500 500", kubelet="403 500 500 500"),
    Row(f"POST {EXEC}", "403 403 500 500"),
    Row(f"PUT {EXEC}", "403 403 405 405", kubelet="403 403 405 405"),  # asks for `update`
    Row("POST /exec/shop/web-1/app", "403 403 400 400"),
    Row("GET /exec/shop/web-1", "403 403 404 404", kubelet="403 404 404 404"),
    Row("POST /exec/shop/stranger/app?output=1", "403 403 404 404"),
    Row("POST /exec/default/web-1/app?output=1", "403 403 404 404"),
    Row("GET /attach/shop/web-1/app?output=1", "403 403 500 500", kubelet="403 500 500 500"),
    Row("POST /attach/shop/web-1/app?output=1", "403 403 500 500"),
    Row("POST /attach/shop/stranger/app?output=1", "403 403 404 404"),
    Row("GET /portForward/shop/web-1", "403 403 500 500", kubelet="403 500 500 500"),
    Row("POST /portForward/shop/web-1", "403 403 500 500"),
    Row("POST /portForward/shop/stranger", "403 403 404 404"),
    Row("DELETE /portForward/shop/web-1", "403 403 405 405", kubelet="403 403 405 405"),  # `delete`
    # What is off, in the words for that.
    Row("POST /run/shop/web-1/app?cmd=id", "403 403 405 405", kubelet="403 403 200 200"),
    Row("GET /logs/", "403 403 403 405"),
    Row("GET /logs/syslog", "403 403 403 405"),
    Row("POST /logs/", "403 403 403 405"),
    Row("GET /debug/pprof/", "403 405 405 405"),
    Row("GET /debug/pprof/heap", "403 405 405 405"),
    Row("GET /debug/flags/v", "403 405 405 405"),
    Row("PUT /debug/flags/v", "403 403 405 405"),
    # What is not there, a feature that is off included. A kubelet's mux says so to everybody, before its door.
    Row("GET /", "403 404 404 404", kubelet="404"),
    Row("GET /nothing", "403 404 404 404", kubelet="404"),
    Row("PUT /nothing", "403 403 404 404", kubelet="404"),
    Row("GET /debug", "403 404 404 404", kubelet="404"),
    Row("GET /healthz/", "403 404 404 404", kubelet="404"),
    Row("GET /healthz/other", "403 404 404 404", kubelet="404"),
    Row("GET /metrics/", "403 403 403 404", kubelet="404"),
    Row("GET /metrics/other", "403 403 403 404", kubelet="404"),
    Row("GET /configz/", "403 404 404 404", kubelet="404"),
    Row("POST /checkpoint/shop/web-1/app", "403 403 403 404", kubelet="404"),
    Row("GET /checkpoint/shop/web-1/app", "403 403 403 404", kubelet="404"),
    Row("GET /statusz", "403 403 403 404", kubelet="404"),
    Row("GET /flagz", "403 403 403 404", kubelet="404"),
    Row("GET /allocatedPods", "403 404 404 404", kubelet="404"),
    Row("GET /allocatedPods/shop/web-1", "403 404 404 404", kubelet="404"),
    # The mux redirects, before the door as well.
    Row("GET /stats", "404 403 403 404", kubelet="307"),
    Row("GET /runningpods", "403 200 200 200", kubelet="307"),
    Row("GET /logs", "403 403 403 405", kubelet="307"),
    Row("GET /debug/pprof", "403 405 405 405", kubelet="307"),
    # Tricks: the right of what a path says first, then no answer but that it is none.
    Row("GET //pods", "403 400 400 400", kubelet="307"),
    Row(f"GET /{LOGS}", "403 400 400 400", kubelet="307"),
    Row("GET /containerLogs//web-1/app", "403 400 400 400", kubelet="307"),
    Row("GET /containerLogs/shop/web-1/./app", "403 400 400 400", kubelet="307"),
    Row("GET /containerLogs/default/../shop/web-1/app", "403 400 400 400", kubelet="307"),
    Row("GET /containerLogs/shop/x/../web-1/app", "403 400 400 400", kubelet="307"),
    Row(f"GET /healthz/..{LOGS}", "403 400 400 400", kubelet="307"),
    Row(f"GET /exec/..{LOGS}", "403 403 400 400", kubelet="307"),
    Row("GET /metrics/../pods", "403 403 403 400", kubelet="307"),
    Row("GET /stats/../configz", "400 403 403 400", kubelet="307"),
    Row("GET /stats%2f..%2fpods", "403 400 400 400", kubelet="404"),
    Row("GET /%6detrics", "403 400 400 400", kubelet="403 403 403 200"),
    Row("GET /containerLogs/shop/x/%2e%2e/web-1/app", "403 400 400 400", kubelet="403 404 404 404"),
    Row("GET /containerLogs/shop/x%2f..%2fweb-1/app", "403 400 400 400", kubelet="403 404 404 404"),
    Row("GET /containerLogs/shop/web%2d1/app?tailLines=0", "403 400 400 400", kubelet="403 200 200 200"),
    Row("GET https://127.0.0.1/metrics", "403 400 400 400", kubelet="403 403 403 200"),
]


def rbac() -> Iterator[dict[str, Any]]:
    """The accounts of `RIGHTS` with their rights, and jane, who has the reader's."""
    yield namespace("shop")
    for name, (verb, subresources, node) in RIGHTS.items():
        role = cluster_role(f"door-{name}", "", "", verb)
        role["rules"][0]["resources"] = [f"nodes/{subresource}" for subresource in subresources.split()]
        role["rules"][0] |= {"resourceNames": [node]} if node else {}
        yield role
        yield {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": "shop"}}
        yield binding(f"door-{name}", account(name))
    yield binding("door-reader", user("jane"))


class Answer(NamedTuple):
    code: int
    text: str
    allow: str | None


@dataclass(frozen=True)
class Side:
    """A kubelet's port, of a cluster in which `RIGHTS` are given."""

    plane: ControlPlane
    address: str
    port: int
    tokens: dict[str, str]
    directory: Path

    def connect(self, client: Pair | None = None) -> http.client.HTTPSConnection:
        return connect(self.address, self.port, client, self.directory)

    def answers(self, request: str) -> dict[str, Answer]:
        """What each of those gets who come with a token, or with nothing."""
        with contextlib.closing(self.connect()) as connection:
            return {who: self._answer(connection, request, token) for who, token in self.tokens.items()}

    def code(self, client: Pair | None, path: str = f"{LOGS}?tailLines=0") -> int:
        """The code for who comes with a client certificate; 0 when the connection is refused."""
        try:
            with contextlib.closing(self.connect(client)) as connection:
                return ask(connection, path)[0]
        except (ssl.SSLError, ConnectionError):  # in TLS 1.3 a client learns with its first read that it is refused
            return 0

    def _answer(self, connection: http.client.HTTPSConnection, request: str, token: str) -> Answer:
        method, path = request.split(" ")
        connection.putrequest(method, path, skip_accept_encoding=True)
        if token:
            connection.putheader("Authorization", f"Bearer {token}")
        connection.endheaders()
        response = connection.getresponse()
        return Answer(response.status, response.read().decode(), response.getheader("Allow"))


UNKNOWN = ("anonymous", "garbage", "expired", "of another audience", "of another issuer")


def tokens_of(plane: ControlPlane) -> dict[str, str]:
    """Tokens that say who has which right, and those that are to say nothing."""
    create = ("create", "token", "-n", "shop")
    good = {name: plane.kubectl(*create, name).stdout.strip() for name in RIGHTS}
    past = {"exp": int(time.time()) - 60, "iat": int(time.time()) - 3600, "nbf": int(time.time()) - 3600}
    key = (plane.directory / "sa.key").read_bytes()
    strange = Authority("elsewhere").pair.key
    unknown = (
        "",
        good["admin"][:-6] + "AAAAAA",
        signed(good["admin"], key, **past),
        plane.kubectl(*create, "admin", "--audience=elsewhere").stdout.strip(),
        signed(good["admin"], strange),
    )
    return {**dict(zip(UNKNOWN, unknown, strict=True)), **good, "signed anew": signed(good["admin"], key)}


def signed(token: str, key: bytes, **claims: int) -> str:
    """A ServiceAccount's token with other claims: the apiserver issues none that lives less than ten minutes."""

    def encoded(part: bytes) -> str:
        return base64.urlsafe_b64encode(part).decode().rstrip("=")

    head, body, _ = token.split(".")
    content = json.loads(base64.urlsafe_b64decode(body + "==")) | claims
    text = f"{head}.{encoded(json.dumps(content).encode())}"
    signer = serialization.load_pem_private_key(key, None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    r, s = decode_dss_signature(signer.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{text}.{encoded(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def expected_codes(answers: str) -> dict[str, int]:
    codes = dict(zip(("stats", "reader", "proxy", "admin"), map(int, answers.split()), strict=True))
    nobody = dict.fromkeys(UNKNOWN, 401) | dict.fromkeys(("nobody", "neighbour"), 403)
    return nobody | codes | {"signed anew": codes["admin"]}
