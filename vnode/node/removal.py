"""Takes a virtual Node out for good: cordon, evict, wait, delete. For `vnode remove`, `--deregister-on-exit` and Peers
that are deleted.

It works on the home cluster alone and is to run beside a live session of the peer, here or in another process: that
ends the remote Pods and releases the local ones, as for any deleted Pod. The Node's annotation `vnode.dev/removing`
tells that session not to register the Node again.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from vnode import names
from vnode.errors import Conflict, NotFound, Unavailable, VnodeError
from vnode.kube.client import LEASES, MERGE_PATCH, METADATA_LIST, NODES, PODS, Client
from vnode.kube.objects import JsonDict, Key, Object, parse_list, parse_object
from vnode.node.heartbeat import LEASE_NAMESPACE
from vnode.node.manifest import Identity

LOOK_EVERY_S: Final = 1.0
TELL_EVERY_S: Final = 10.0

Say = Callable[[str], None]


class ForeignNode(VnodeError):
    """The Node of that name is not ours: it is not touched."""


async def drain_and_remove(home: Client, name: str, identity: Identity, say: Say, limit_s: float | None) -> None:
    """Drain the Node `name` and delete it with its Lease, within `limit_s` (None: as long as it takes).

    `say` is told of progress. PodDisruptionBudgets are honoured: a refused eviction is tried again until it is granted.
    Pods of DaemonSets go last, by deletion, as their controller would only make them again. Raises `NotFound`,
    `ForeignNode`, `Rejected` when we lack a right, `VnodeError` when time is up: the Node then stays cordoned, and a
    second call goes on from there.
    """
    key = Key("", name)
    node = await _own_node(home, key, identity)
    drain = _Drain(home, name, say)
    try:
        async with asyncio.timeout(limit_s):
            await home.patch(NODES, key, {"metadata": {"uid": node.uid}, "spec": {"unschedulable": True}}, MERGE_PATCH)
            say(f"node {name}: cordoned")
            await drain.until_gone(lambda pod: not _of_daemon_set(pod), drain.evict)
            made_so_far = {pod.uid for pod in await drain.pods()}
            await drain.until_gone(lambda pod: pod.uid in made_so_far, drain.delete)
            await _mark(home, key, node.uid)
            await _delete_node(home, key, node.uid)
            await drain.until_gone(lambda _: True, drain.delete)  # what a DaemonSet made in between
    except TimeoutError as error:
        detail = f": {drain.obstacle}" if drain.obstacle else ""
        raise VnodeError(f"node {name} not drained within {limit_s or 0:.0f} s, it stays cordoned{detail}") from error
    say(f"node {name}: removed")


async def abandon(home: Client, name: str, identity: Identity) -> list[Key]:
    """Delete the Node `name` with its Lease, and its Pods at home whatever becomes of them at the peer.

    Returns those Pods: without their Node nothing would ever end them here, and what ran for them may run on. Raises
    `NotFound`, `ForeignNode`, or another `ApiError`: a second call goes on from there.
    """
    key = Key("", name)
    node = await _own_node(home, key, identity)
    await _mark(home, key, node.uid)
    pods = await _Drain(home, name, lambda _: None).pods()
    for pod in pods:
        with suppress(NotFound, Conflict):
            await home.delete(PODS, pod.key, uid=pod.uid, grace_s=0)
    await _delete_node(home, key, node.uid)
    return [pod.key for pod in pods]


async def is_foreign(home: Client, name: str, identity: Identity) -> bool:
    """Whether there is a Node `name` that is not ours. Raises `ApiError`."""
    try:
        await _own_node(home, Key("", name), identity)
    except NotFound:
        return False
    except ForeignNode:
        return True
    return False


async def _own_node(home: Client, key: Key, identity: Identity) -> Object:
    node = parse_object(await home.get(NODES, key))
    if node.meta.annotations.get(names.CLUSTER_UID) != identity.cluster_uid:
        raise ForeignNode(f"the Node {key.name} is not this vnode's (annotation {names.CLUSTER_UID}): not touched")
    return node


async def _mark(home: Client, key: Key, uid: str) -> None:
    """From now on the session does not register the Node anew, nor begin anything on it."""
    mark: JsonDict = {"metadata": {"uid": uid, "annotations": {names.REMOVING: "true"}}}
    await home.patch(NODES, key, mark, MERGE_PATCH)


class _Drain:
    """The Pods of one node on their way out."""

    def __init__(self, home: Client, node: str, say: Say) -> None:
        self.obstacle = ""  # what the last try that failed met
        self._home = home
        self._node = node
        self._say = say

    async def pods(self) -> list[Object]:
        """The Pods bound to the node now, their metadata only."""
        found: list[Object] = []
        params = {"fieldSelector": f"spec.nodeName={self._node}", "limit": "500"}
        while True:
            page, _, more = parse_list(await self._home.list_page(PODS, "", params, METADATA_LIST))
            found += page
            if not more:
                return found
            params["continue"] = more

    async def until_gone(self, concerned: Callable[[Object], bool], end: Callable[[Object], Awaitable[None]]) -> None:
        """Bring `end` on the `concerned` Pods until there are none; what is unavailable now is tried again."""
        loop = asyncio.get_running_loop()
        told_at, told = float("-inf"), -1
        while True:
            try:
                left = [pod for pod in await self.pods() if concerned(pod)]
                if not left:
                    return
                for pod in left:
                    if not pod.leaving:
                        await self._try(pod, end)
            except Unavailable as error:
                self.obstacle = str(error)
            else:
                if len(left) != told or loop.time() >= told_at + TELL_EVERY_S:
                    told_at, told = loop.time(), len(left)
                    detail = f" ({self.obstacle})" if self.obstacle else ""
                    self._say(f"node {self._node}: {len(left)} Pods to go{detail}")
            await asyncio.sleep(LOOK_EVERY_S)

    async def evict(self, pod: Object) -> None:
        """Evict as `kubectl drain` does: with the Pod's own grace period, refused while a budget forbids it."""
        eviction: JsonDict = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"namespace": pod.key.namespace, "name": pod.key.name},
            "deleteOptions": {"preconditions": {"uid": pod.uid}},
        }
        await self._home.create(PODS, pod.key.namespace, eviction, name=pod.key.name, subresource="eviction")

    async def delete(self, pod: Object) -> None:
        """Delete with the Pod's own grace period."""
        await self._home.delete(PODS, pod.key, uid=pod.uid)

    async def _try(self, pod: Object, end: Callable[[Object], Awaitable[None]]) -> None:
        try:
            await end(pod)
        except (NotFound, Conflict):
            pass  # gone, or another by now: the next look says
        except Unavailable as error:  # 429: a budget; the others may go
            self.obstacle = f"{pod.key}: {error}"
        else:
            self.obstacle = ""


async def _delete_node(home: Client, key: Key, uid: str) -> None:
    try:
        await home.delete(NODES, key, uid=uid)
        lease = Key(LEASE_NAMESPACE, key.name)
        await home.delete(LEASES, lease, uid=parse_object(await home.get(LEASES, lease)).uid)
    except NotFound:
        pass  # the Lease is the Node's: the garbage collector may have been faster


def _of_daemon_set(pod: Object) -> bool:
    return any(owner.get("kind") == "DaemonSet" and owner.get("controller") for owner in pod.meta.owner_references)
