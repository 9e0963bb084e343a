"""The home side of joining and leaving: a Secret with the peer's kubeconfig, and the Peer object that names it."""

import asyncio
import base64
from collections.abc import Mapping
from typing import Final

import msgspec

from vnode import names, roles
from vnode.config import default_cluster_name
from vnode.errors import ConfigError, NotFound, VnodeError
from vnode.join import account
from vnode.join.account import Admin
from vnode.join.apply import Say, apply_all, delete_all
from vnode.kube.client import NAMESPACES, PEERS, Client
from vnode.kube.objects import JsonDict, Key, parse_object

LOOK_EVERY_S: Final = 1.0
_OF_ACCOUNT: Final = ("ServiceAccount", "RoleBinding", "ClusterRoleBinding")  # roles without them give nobody anything


def pairs(text: str) -> dict[str, str]:
    """Home namespace to its namespace at the peer, of `HOME=REMOTE,…`; one name alone is both. Raises `ConfigError`."""
    found: dict[str, str] = {}
    for pair in filter(None, text.split(",")):
        local, _, remote = pair.partition("=")
        if not local or local in found:
            raise ConfigError(f"--namespaces {text}: expected HOME=REMOTE, each home namespace once")
        found[local] = remote or local
    return found


def manifests(name: str, namespace: str, kubeconfig: str, mapped: Mapping[str, str]) -> list[JsonDict]:
    """The Secret and the Peer."""
    spec: JsonDict = {"secretRef": {"name": _secret(name)}}
    if mapped:
        spec["namespaces"] = {"scope": "mapped", "map": dict(mapped)}
    return [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": _secret(name), "namespace": namespace, "labels": roles.LABELS},
            "data": {"kubeconfig": base64.b64encode(kubeconfig.encode()).decode()},
        },
        {
            "apiVersion": f"{names.DOMAIN}/{names.PEER_VERSION}",
            "kind": "Peer",
            "metadata": {"name": name},
            "spec": spec,
        },
    ]


async def join(
    name: str,
    namespace: str,
    mapped: Mapping[str, str],
    home: Admin,
    peer: Admin,
    server: str,
    kubelets: bool,
    say: Say,
) -> None:
    """Make this home's account at the peer, then Secret and Peer at home. Raises `ApiError`."""
    async with home.client("home") as client:
        items = account.manifests(list(mapped.values()), kubelets, await _own_name(client))
        text = await account.create(name, peer, server, items, say)
        await apply_all(client, manifests(name, namespace, text, mapped), say)
    say(f"joined; see: kubectl get peer {name}")


async def leave(name: str, namespace: str, home: Admin, peer: Admin | None, limit_s: float, say: Say) -> None:
    """Delete the Peer, wait until vnode has drained it, then delete its Secret, and with `peer` the account there.

    Raises `ApiError`, `NotFound` without such a Peer, or `VnodeError` when it is still there after `limit_s`.
    """
    async with home.client("home") as client:
        found: JsonDict = msgspec.json.decode(await client.get(PEERS, Key("", name)))
        await delete_all(client, [found], say)
        try:
            async with asyncio.timeout(limit_s):
                await _gone(client, name, say)
        except TimeoutError as error:
            message = f"peer {name} still drains after {limit_s:.0f} s: kubectl describe peer {name}"
            raise VnodeError(message) from error
        await delete_all(client, manifests(name, namespace, "", {})[:1], say)
        own = await _own_name(client)
    if peer is not None:
        rules = found["spec"].get("namespaces") or {}
        places = list(rules["map"].values()) if rules.get("scope") == "mapped" else []
        made = account.manifests(places, True, own)
        async with peer.client(name) as there:
            await delete_all(there, [item for item in made if item["kind"] in _OF_ACCOUNT], say)


async def _own_name(home: Client) -> str:
    """This home's account at peers: several homes may share one."""
    uid = parse_object(await home.get(NAMESPACES, Key("", "kube-system"))).uid
    return f"{roles.ACCOUNT}-{default_cluster_name(uid)}"


async def _gone(client: Client, name: str, say: Say) -> None:
    told = ""
    while True:
        try:
            found = parse_object(await client.get(PEERS, Key("", name)))
        except NotFound:
            return
        conditions = {each["type"]: each.get("message", "") for each in found.status().get("conditions") or ()}
        if (message := conditions.get("Draining", "")) != told:
            say(f"peer {name}: {message}")
            told = message
        await asyncio.sleep(LOOK_EVERY_S)


def _secret(name: str) -> str:
    return f"vnode-peer-{name}"
