"""One reflector a peer: the ConfigMaps and Secrets that mirrored Pods name are there, equal to home's, and no others.

Only metadata is watched, on both sides, and a body is read when its version differs; so memory grows by the number of
objects, not by their size. A home namespace is read only once a Pod there needs it. A home object that is deleted goes
at the peer too; Pods that run keep what they have, as on any node. Called by `pods.controller`
(`ensure`, `use`) and driven by its own queue.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress

import msgspec

from vnode import names
from vnode.errors import Conflict, NotFound, Rejected, Unavailable
from vnode.kube.client import Client
from vnode.kube.objects import Key, Object, parse_object
from vnode.policy.route import Reference, Refused, Route
from vnode.reflect.kinds import KINDS, Ref, remote_object, version
from vnode.reflect.namespaces import RemoteNamespaces
from vnode.runtime.controller import Controller
from vnode.runtime.covering import CoveringInformer
from vnode.runtime.informer import Informer
from vnode.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

WORKERS = 8
UNREADABLE_AGAIN_S = 30.0


class Reflector:
    """`local` and `remote` are metadata informers by kind; `arrived` is called with the Pods that waited for a Ref."""

    def __init__(
        self,
        *,
        home: Client,
        peer: Client,
        route: Route,
        namespaces: RemoteNamespaces,
        local: Mapping[str, CoveringInformer],
        remote: Mapping[str, Informer],
        arrived: Callable[[Iterable[Key]], None],
        metrics: Metrics,
    ) -> None:
        self._home = home
        self._peer = peer
        self._route = route
        self._namespaces = namespaces
        self._local = local
        self._remote = remote
        self._arrived = arrived
        self._users: dict[Ref, set[Key]] = {}
        self._uses: dict[Key, frozenset[Ref]] = {}
        self._going: dict[Ref, asyncio.Future[None]] = {}
        self.controller: Controller[Ref] = Controller("reflect", peer.side, self._reconcile, metrics, WORKERS)
        for kind, informer in remote.items():
            informer.on_change(self._remote_changed(kind))

    async def run(self) -> None:
        """Work until cancelled."""
        with ExitStack() as stack:  # home's informers outlive us: they serve every peer
            for kind, informer in self._local.items():
                stack.callback(informer.on_change(self._local_changed(kind)))
            await self.controller.run()

    def use(self, pod: Key, references: Iterable[Reference]) -> None:
        """Say what `pod` needs from now on; nothing once it is finished or gone."""
        wanted = frozenset(Ref(reference.kind, pod.namespace, reference.name) for reference in references)
        before = self._uses.get(pod, frozenset())
        if wanted == before:
            return
        for ref in before - wanted:
            users = self._users[ref]
            users.discard(pod)
            if not users:
                del self._users[ref]
                self.controller.queue.add(ref)
        for ref in wanted - before:
            self._users.setdefault(ref, set()).add(pod)
            if not self._current(ref):
                self.controller.queue.add(ref)
        if wanted:
            self._uses[pod] = wanted
        else:
            self._uses.pop(pod, None)

    def holds(self, namespace: str, wanted: Reference) -> bool:
        """Whether the peer has a copy of ours of what Pods of home's `namespace` call so."""
        return self._remote_meta(Ref(wanted.kind, namespace, wanted.name)) is not None

    async def remove_strays(self, mirrors: Iterable[Object]) -> None:
        """Remove copies from where they belong no more (the namespace's remote name was changed) and no mirror is."""
        used = {mirror.meta.namespace for mirror in mirrors}
        for kind, informer in self._remote.items():
            for copy in list(informer.store):
                place = self._route.remote_namespace(copy.meta.annotations.get(names.ORIGIN_NAMESPACE, ""))
                if copy.meta.namespace not in (place, *used) and not copy.leaving:
                    await self._remove(kind, copy)

    async def prepare(self, namespace: str, wanted: Iterable[Reference]) -> list[Reference]:
        """Have the remote namespace and, as `ensure`, what is wanted in it."""
        await self._namespaces.ensure(namespace)
        return await self.ensure(namespace, wanted)

    def doubt(self, namespace: str) -> None:
        """The peer says that the namespace is not there: look again next time."""
        self._namespaces.doubt(namespace)

    async def ensure(self, namespace: str, references: Iterable[Reference]) -> list[Reference]:
        """Have everything referred to at the peer, in home's newest version; what home itself lacks is returned.

        Raises `Refused` for what may not leave home or whose name is taken at the peer, and `ApiError`.
        """
        missing = []
        for reference in sorted(references):
            ref = Ref(reference.kind, namespace, reference.name)
            try:
                await self._local[ref.kind].cover(namespace)
            except Rejected as error:
                raise Refused(names.REFERENCE_NOT_READABLE, f"{ref}: {error.message}") from error
            if self._local_meta(ref) is None:
                missing.append(reference)
            elif not self._current(ref):
                await self._once(ref)
        return missing

    def _local_meta(self, ref: Ref) -> Object | None:
        return self._local[ref.kind].store.get(Key(ref.namespace, ref.name))

    def _remote_meta(self, ref: Ref) -> Object | None:
        namespace = self._route.remote_namespace(ref.namespace)
        return self._remote[ref.kind].store.get(Key(namespace, ref.name))

    def _current(self, ref: Ref) -> bool:
        local, remote = self._local_meta(ref), self._remote_meta(ref)
        return (
            local is not None
            and remote is not None
            and remote.meta.annotations.get(names.ORIGIN_VERSION) == version(local.meta)
        )

    async def _once(self, ref: Ref) -> None:
        """Write one object; callers that come while another writes it wait for that one's end, good or bad."""
        going = self._going.get(ref)
        if going is not None:
            await asyncio.shield(going)
            return
        future = self._going[ref] = asyncio.get_running_loop().create_future()
        try:
            await self._write(ref)
        except BaseException as error:
            failure = error if isinstance(error, Exception) else Unavailable(f"the writer of {ref} was stopped")
            future.set_exception(failure)
            future.exception()  # nobody need be waiting
            raise
        else:
            future.set_result(None)
        finally:
            del self._going[ref]

    async def _reconcile(self, ref: Ref) -> float | None:
        remote = self._remote_meta(ref)
        users = self._users.get(ref)
        if users:
            try:
                await self._local[ref.kind].cover(ref.namespace)
            except Rejected:  # told on each Pod; what is at the peer already stays as it is
                return UNREADABLE_AGAIN_S
        if users and self._local_meta(ref) is not None:
            if not self._current(ref):
                with suppress(Refused):  # told on each Pod, by its own controller
                    await self._once(ref)
                self._arrived(users)
        elif remote is not None:
            await self._remove(ref.kind, remote)
        return None

    async def _write(self, ref: Ref) -> None:
        resource = KINDS[ref.kind]
        try:
            answer = await self._home.get(resource, Key(ref.namespace, ref.name))
        except NotFound:
            return  # the watch will say so, too
        self._local[ref.kind].learn(parse_object(answer))  # its watch may be behind: what we copy is what we know
        local = msgspec.json.decode(answer)
        manifest = remote_object(ref.kind, local, self._route)
        await self._namespaces.ensure(ref.namespace)
        key = Key(manifest["metadata"]["namespace"], ref.name)
        remote = self._remote_meta(ref)
        if remote is not None and remote.meta.annotations.get(names.ORIGIN_UID) != local["metadata"]["uid"]:
            await self._remove(ref.kind, remote)  # made from an earlier object of the name; that one may be immutable
            remote = None
        try:
            if remote is not None:
                manifest["metadata"]["uid"] = remote.uid
                answer = await self._peer.replace(resource, key, manifest)
            else:
                answer = await self._peer.create(resource, key.namespace, manifest)
        except NotFound:
            self._namespaces.doubt(ref.namespace)
            if remote is not None:
                self._remote[ref.kind].forget(key, remote.uid)
            raise
        except Conflict:
            found = parse_object(await self._peer.get(resource, key))
            if not self._route.owns(found):
                message = f"{ref.kind} {key} exists at the peer and is not ours"
                raise Refused(names.REMOTE_NAME_TAKEN, message) from None
            self._remote[ref.kind].learn(found)
            raise
        self._remote[ref.kind].learn(parse_object(answer))
        log.debug("reflected", extra={"kind": ref.kind, "namespace": ref.namespace, "object": ref.name})

    async def _remove(self, kind: str, remote: Object) -> None:
        with suppress(NotFound, Conflict):
            await self._peer.delete(KINDS[kind], remote.key, uid=remote.uid)
        self._remote[kind].forget(remote.key, remote.uid)

    def _local_changed(self, kind: str) -> Callable[[Key, Object | None, Object | None], None]:
        def changed(key: Key, _before: Object | None, _now: Object | None) -> None:
            ref = Ref(kind, *key)
            if ref in self._users:
                self.controller.queue.add(ref)

        return changed

    def _remote_changed(self, kind: str) -> Callable[[Key, Object | None, Object | None], None]:
        def changed(key: Key, before: Object | None, now: Object | None) -> None:
            seen = now or before
            assert seen is not None
            self.controller.queue.add(Ref(kind, seen.meta.annotations.get(names.ORIGIN_NAMESPACE, ""), key.name))

        return changed
