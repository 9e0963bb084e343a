"""vnode's account at a peer, and the kubeconfig that speaks for it.

The token in it is a bound one that ends after a month. With the right to make tokens for its own account, and no other,
vnode puts the next in its place half-way (`peers.renewal`).
"""

import base64
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, NamedTuple

import yaml

from vnode import roles
from vnode.join.apply import Say, apply_all, described, key_of
from vnode.kube import token
from vnode.kube.client import Client
from vnode.kube.credentials import from_kubeconfig, read_kubeconfig
from vnode.kube.objects import JsonDict
from vnode.telemetry.metrics import Metrics

TOKEN_LIFE: Final = timedelta(days=30)


class Admin(NamedTuple):
    """An administrator's kubeconfig files (as $KUBECONFIG names them) and context, "" for the current one."""

    paths: str
    context: str

    @contextlib.asynccontextmanager
    async def client(self, side: str) -> AsyncIterator[Client]:
        """A client for the block."""
        client = Client(from_kubeconfig(self.paths, self.context), side, Metrics())
        try:
            yield client
        finally:
            await client.close()


def manifests(namespaces: Sequence[str], kubelets: bool, account: str) -> list[JsonDict]:
    """What is made at the peer: for `namespaces` there, or for all where none is named."""
    if namespaces:
        return roles.peer_namespaces(namespaces, account)
    return roles.peer_cluster(account) + (roles.peer_kubelets(account) if kubelets else [])


async def create(name: str, admin: Admin, server: str, items: Sequence[JsonDict], say: Say) -> str:
    """Apply the account's manifests at the peer; a kubeconfig for it that leads to `server`. Raises `ApiError`."""
    way = await read_kubeconfig(admin.paths, admin.context)
    say(f"will make at {way['server']}:")
    for item in items:
        say(f"  {described(item)}")
    (account,) = (key_of(item) for item in items if item["kind"] == "ServiceAccount")
    async with admin.client(name) as peer:
        await apply_all(peer, items, say)
        bearer = await token.request(peer, account.namespace, account.name, TOKEN_LIFE)
    return kubeconfig(name, way | ({"server": server} if server else {}), bearer)


def kubeconfig(name: str, way: Mapping[str, Any], bearer: str) -> str:
    """A self-contained kubeconfig; `way` is what another one says of the way there (`read_kubeconfig`)."""
    cluster: JsonDict = {"server": way["server"]}
    if way.get("ca"):
        cluster["certificate-authority-data"] = base64.b64encode(way["ca"].encode()).decode()
    if way.get("insecure"):
        cluster["insecure-skip-tls-verify"] = True
    for key, value in (("tls-server-name", way.get("server_name")), ("proxy-url", way.get("proxy"))):
        if value:
            cluster[key] = value
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": roles.ACCOUNT, "user": {"token": bearer}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": roles.ACCOUNT}}],
        "current-context": name,
    }
    return yaml.safe_dump(document, sort_keys=False)
