"""The home side of joining and leaving: a Secret with the peer's kubeconfig, and the Peer object that names it."""

import asyncio
import base64
from collections.abc import Mapping, Sequence
from typing import Final

from vnode import roles
from vnode.errors import ConfigError, NotFound, VnodeError
from vnode.join import account
from vnode.join.account import Admin
from vnode.join.apply import PEERS, Say, apply_all, delete_all
from vnode.kube.client import Client
from vnode.kube.objects import JsonDict, Key, parse_object

LOOK_EVERY_S: Final = 1.0


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
        {"apiVersion": "vnode.dev/v1alpha1", "kind": "Peer", "metadata": {"name": name}, "spec": spec},
    ]


async def join(
    name: str,
    namespace: str,
    mapped: Mapping[str, str],
    home: Admin,
    peer: Admin,
    server: str,
    items: Sequence[JsonDict],
    say: Say,
) -> None:
    """Make the account at the peer (`items`), then Secret and Peer at home. Raises `ApiError`."""
    text = await account.create(name, peer, server, items, say)
    async with home.client("home") as client:
        await apply_all(client, manifests(name, namespace, text, mapped), say)
    say(f"joined; see: kubectl get peer {name}")


async def leave(name: str, namespace: str, home: Admin, peer: Admin | None, limit_s: float, say: Say) -> None:
    """Delete the Peer, wait until vnode has drained it, then delete its Secret, and with `peer` the account there.

    Raises `ApiError`, or `VnodeError` when the Peer is still there after `limit_s`.
    """
    secret, wanted = manifests(name, namespace, "", {})
    async with home.client("home") as client:
        await delete_all(client, [wanted], say)
        try:
            async with asyncio.timeout(limit_s):
                await _gone(client, name, say)
        except TimeoutError as error:
            message = f"peer {name} still drains after {limit_s:.0f} s: kubectl describe peer {name}"
            raise VnodeError(message) from error
        await delete_all(client, [secret], say)
    if peer is not None:
        async with peer.client(name) as there:
            await delete_all(there, account.manifests([], kubelets=True), say)


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
