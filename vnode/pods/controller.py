"""One peer's Pod loop: gather a pair from the two stores, `plan` it, carry the one next step out.

Pod-down and status-up share the queue and the plan, so they cannot disagree. Answers of our own writes go into the
stores at once: nothing is decided on what we ourselves have made old. Built by `peers.session`.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from typing import Final, Protocol

from vnode import names
from vnode.errors import Conflict, NotFound, Rejected, Unavailable
from vnode.kube.client import PODS, STRATEGIC_PATCH, Client
from vnode.kube.objects import Json, Key, Object, parse_object
from vnode.pods.plan import Action, Create, DeleteRemote, Refuse, ReleaseLocal, Update, WriteStatus, plan
from vnode.pods.status import View, done, remote_condition_patch
from vnode.pods.translate import references
from vnode.policy.route import Reference, Refused, Route, local_key
from vnode.runtime.controller import REJECTED_RETRY_S, Controller
from vnode.runtime.informer import Informer
from vnode.runtime.recorder import Recorder, Regarding
from vnode.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

WORKERS: Final = 32


class Surroundings(Protocol):
    """What must be at the peer before a mirror can be: its namespace, and what its spec refers to."""

    async def prepare(self, namespace: str, wanted: Iterable[Reference]) -> list[Reference]:
        """Have them; the references that home lacks are returned. Raises `Refused` (tell the user) or `ApiError`."""

    def use(self, pod: Key, wanted: Iterable[Reference]) -> None:
        """Say what a Pod needs from now on."""

    def doubt(self, namespace: str) -> None:
        """The peer says the namespace is not there."""


class PodController:
    """`local` follows the Pods bound to our node, `remote` our objects at the peer."""

    def __init__(
        self,
        *,
        home: Client,
        peer: Client,
        local: Informer,
        remote: Informer,
        route: Route,
        view: View,
        offloads: Callable[[str], bool],
        surroundings: Surroundings,
        recorder: Recorder,
        metrics: Metrics,
        now: Callable[[], datetime],
    ) -> None:
        self._home = home
        self._peer = peer
        self._local = local
        self._remote = remote
        self._route = route
        self._view = view
        self._offloads = offloads
        self._surroundings = surroundings
        self._recorder = recorder
        self._now = now
        self._mirrors: dict[Key, set[Key]] = {}  # local key -> keys of what stands for it at the peer
        self._lost: dict[Key, Object] = {}  # local key -> the last state of a mirror we saw go
        self._uncertain: set[Key] = set()  # a create whose answer never came: look before anything else
        self._bound_at: dict[Key, float] = {}
        self._changed_at: dict[Key, float] = {}
        self.controller: Controller[Key] = Controller("pods", peer.side, self._reconcile, metrics, WORKERS)
        self._hop_down = metrics.hop_down.labels(peer.side)
        self._hop_up = metrics.hop_up.labels(peer.side)
        metrics.pods.labels(peer.side, "home").set_function(lambda: len(local.store))
        metrics.pods.labels(peer.side, "peer").set_function(lambda: len(remote.store))
        local.on_change(self._local_changed)
        remote.on_change(self._remote_changed)
        remote.on_listed(lambda: self.look_at([pod.key for pod in local.store]))

    def locate(self, namespace: str, name: str) -> tuple[Key, Object] | None:
        """A Pod of this node and the key of its mirror (where it will be, when there is none yet); None if not ours."""
        local = self._local.store.get(Key(namespace, name))
        if local is None:
            return None
        remote = self._mirror(local.key, local)[0]
        return (remote.key if remote else Key(self._route.remote_namespace(namespace), name)), local

    def pairs(self) -> Iterator[tuple[Object, Object | None]]:
        """Every Pod of this node, with the mirror that stands for it and no other of its name."""
        for local in self._local.store:
            remote = self._mirror(local.key, local)[0]
            yield local, remote if remote and remote.meta.annotations.get(names.ORIGIN_UID) == local.uid else None

    def look_at(self, keys: Iterable[Key]) -> None:
        """Have these Pods looked at now."""
        for key in keys:
            self.controller.queue.add(key)

    def _local_changed(self, key: Key, before: Object | None, now: Object | None) -> None:
        if now is None or done(now):
            self._surroundings.use(key, ())
            if now is None:
                self._lost.pop(key, None)
                self._bound_at.pop(key, None)
        elif before is None or before.raw_spec != now.raw_spec:
            self._surroundings.use(key, references(now.spec()))
        if before is None and key not in self._mirrors:
            self._bound_at.setdefault(key, asyncio.get_running_loop().time())
        self.controller.queue.add(key)

    def _remote_changed(self, _: Key, before: Object | None, now: Object | None) -> None:
        seen = now or before
        assert seen is not None
        key = local_key(seen)
        if now is not None:
            self._mirrors.setdefault(key, set()).add(now.key)
        else:
            self._forget_mirror(key, seen.key)
            local = self._local.store.get(key)
            if local is not None and seen.meta.annotations.get(names.ORIGIN_UID) == local.uid:
                self._lost[key] = seen
        self._changed_at.setdefault(key, asyncio.get_running_loop().time())
        self.controller.queue.add(key)

    def _forget_mirror(self, key: Key, remote: Key) -> None:
        held = self._mirrors.get(key)
        if held is not None:
            held.discard(remote)
            if not held:
                del self._mirrors[key]

    def _mirror(self, key: Key, local: Object | None) -> tuple[Object | None, list[Object]]:
        """The object that stands for `local`, and the others that claim to (of an earlier Pod, or by some mishap)."""
        found = [item for remote in self._mirrors.get(key, ()) if (item := self._remote.store.get(remote))]
        if not found:
            return None, []
        found.sort(key=lambda item: local is None or item.meta.annotations.get(names.ORIGIN_UID) != local.uid)
        return found[0], found[1:]

    async def _reconcile(self, key: Key) -> float | None:
        local = self._local.store.get(key)
        if key in self._uncertain:
            await self._look_at_peer(key)
        remote, others = self._mirror(key, local)
        for other in others:
            if not other.leaving:
                await self._delete_remote(DeleteRemote(other.key, other.uid, orphan=True), key)
        if local is not None and remote is not None and not self._remote.current:
            await self._only_delete(local, remote)
            return None
        action = plan(local, remote, self._lost.get(key), self._route, self._view, self._now())
        if action is None:
            self._changed_at.pop(key, None)
            return None
        return await self._carry_out(action, key, local)

    async def _only_delete(self, local: Object, remote: Object) -> None:
        """While the peer is away our view of it is old: home's status is left as node lifecycle makes it.

        A deletion is safe on an old view, and is tried, so that it is the first thing done on return. The list that
        ends the doubt has every Pod looked at again.
        """
        action = plan(local, remote, None, self._route, self._view, self._now())
        if isinstance(action, DeleteRemote):
            await self._delete_remote(action, local.key)

    async def _carry_out(self, action: Action, key: Key, local: Object | None) -> float | None:
        if isinstance(action, DeleteRemote):
            await self._delete_remote(action, key)
            return None
        assert local is not None  # every other action is about a Pod of home
        match action:
            case Create(manifest):
                return await self._create(manifest, local)
            case Update(remote, patches):
                try:
                    for patch in patches:
                        answer = await self._peer.patch(
                            PODS, remote, patch.body, STRATEGIC_PATCH, subresource=patch.subresource
                        )
                        self._remote.learn(parse_object(answer))
                except Rejected as error:
                    return await self._refuse(local, names.REMOTE_REFUSED, error.message)
            case WriteStatus(patch):
                await self._write_status(local, patch)
                if (changed_at := self._changed_at.pop(key, None)) is not None:
                    self._hop_up.observe(asyncio.get_running_loop().time() - changed_at)
            case ReleaseLocal(uid):
                with suppress(NotFound, Conflict):  # gone already: the watch will say so
                    await self._home.delete(PODS, key, uid=uid, grace_s=0)
                log.debug("released", extra={"namespace": key.namespace, "pod": key.name, "uid": uid})
            case Refuse(reason, message):
                return await self._refuse(local, reason, message)
        return None

    async def _create(self, manifest: Json, local: Object) -> float | None:
        namespace = local.meta.namespace
        if not self._offloads(namespace):
            message = f"namespace {namespace} is not selected for offloading to {self._peer.side}"
            return await self._refuse(local, names.NAMESPACE_NOT_OFFLOADED, message)
        try:
            missing = await self._surroundings.prepare(namespace, references(manifest["spec"]))
            required = [f'{reference.kind} "{reference.name}"' for reference in missing if not reference.optional]
            if required:
                return await self._refuse(local, names.REFERENCE_NOT_FOUND, f"{', '.join(required)} not found")
            answer = await self._peer.create(PODS, manifest["metadata"]["namespace"], manifest)
        except Refused as refused:
            return await self._refuse(local, refused.reason, str(refused))
        except NotFound:
            self._surroundings.doubt(namespace)
            raise
        except Conflict:
            await self._look_at_peer(local.key)
            if self._mirror(local.key, local)[0] is None:
                message = f"a Pod of this name in {manifest['metadata']['namespace']} at the peer is not ours"
                return await self._refuse(local, names.REMOTE_NAME_TAKEN, message)
            return 0.0
        except Rejected as error:
            return await self._refuse(local, names.REMOTE_REFUSED, error.message)
        except (Unavailable, TimeoutError):
            self._uncertain.add(local.key)
            raise
        self._remote.learn(parse_object(answer))
        if (bound_at := self._bound_at.pop(local.key, None)) is not None:
            self._hop_down.observe(asyncio.get_running_loop().time() - bound_at)
        log.debug("mirrored", extra={"namespace": namespace, "pod": local.meta.name, "uid": local.uid})
        return None

    async def _look_at_peer(self, key: Key) -> None:
        """Read the object at the mirror's place, past the store; take it in when it is ours."""
        place = Key(self._route.remote_namespace(key.namespace), key.name)
        try:
            found = parse_object(await self._peer.get(PODS, place))
        except NotFound:
            pass
        else:
            if self._route.owns(found):
                self._remote.learn(found)
        self._uncertain.discard(key)

    async def _delete_remote(self, action: DeleteRemote, key: Key) -> None:
        if action.orphan and await self._wanted_after_all(action, key):
            raise Conflict(f"the store of home's Pods is behind: {key} is there")
        try:
            answer = await self._peer.delete(PODS, action.key, uid=action.uid, grace_s=action.grace_s)
        except (NotFound, Conflict):
            self._remote.store.forget(action.key, action.uid)
            self._forget_mirror(key, action.key)
            self.controller.queue.add(key)
            return
        if action.orphan:
            log.info("orphan removed", extra={"namespace": key.namespace, "pod": key.name, "uid": action.uid})
        if b'"deletionTimestamp"' in answer:
            self._remote.learn(parse_object(answer))

    async def _wanted_after_all(self, action: DeleteRemote, key: Key) -> bool:
        """Ask home itself before removing what only our store says is not wanted."""
        held = self._remote.store.get(action.key)
        try:
            local = parse_object(await self._home.get(PODS, key))
        except NotFound:
            return False
        origin = held.meta.annotations.get(names.ORIGIN_UID) if held else None
        return local.uid == origin and local.spec().get("nodeName") == self._route.node

    async def _write_status(self, local: Object, patch: Json) -> None:
        try:
            answer = await self._home.patch(PODS, local.key, patch, STRATEGIC_PATCH, subresource="status")
        except NotFound:
            return  # the watch will say so
        self._local.learn(parse_object(answer))

    async def _refuse(self, local: Object, reason: str, message: str) -> float:
        """Tell the user, on the Pod's condition and by an Event; look again later, for not every cure is an event."""
        regarding = Regarding("Pod", local.key, local.uid)
        self._recorder.event(regarding, "Warning", reason, message)
        patch = remote_condition_patch(local, reason, message, self._now())
        if patch is not None:
            await self._write_status(local, patch)
        return REJECTED_RETRY_S
