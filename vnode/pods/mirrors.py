"""What stands at the peer for each home Pod: found by the annotations it carries, removed only when that is right.

Every delete has the uid as precondition. What only our store says is not wanted is asked for at home first; a mirror
that went without having left is looked for before its Pod is ended. Used by `pods.controller` alone.
"""

import logging
from collections.abc import Iterator

from vnode import names
from vnode.errors import Conflict, NotFound
from vnode.kube.client import PODS, STRATEGIC_PATCH, Client
from vnode.kube.objects import Key, Object, parse_object
from vnode.pods.plan import DeleteRemote
from vnode.pods.status import done
from vnode.policy.route import Route, local_key
from vnode.runtime.informer import Informer

log = logging.getLogger(__name__)


def origin(remote: Object) -> str | None:
    """The uid of the home Pod that this object says it stands for."""
    return remote.meta.annotations.get(names.ORIGIN_UID)


class Mirrors:
    """Our Pods at the peer by the home Pod they stand for. `remote` follows them, `local` the home Pods."""

    def __init__(self, home: Client, peer: Client, local: Informer, remote: Informer, route: Route) -> None:
        self._home = home
        self._peer = peer
        self._local = local
        self._remote = remote
        self._route = route
        self._places: dict[Key, set[Key]] = {}  # home key -> where at the peer
        self._lost: dict[Key, Object] = {}  # home key -> the last state of its own mirror, which we saw go

    def changed(self, before: Object | None, now: Object | None) -> Key:
        """Take in a change of one of our objects; the key of the home Pod it concerns."""
        seen = now or before
        assert seen is not None
        key = local_key(seen)
        if now is not None:
            self._places.setdefault(key, set()).add(now.key)
            return key
        held = self._places.get(key, set())
        held.discard(seen.key)
        if not held:
            self._places.pop(key, None)
        local = self._local.store.get(key)
        if local is not None and origin(seen) == local.uid:
            self._lost[key] = seen
        return key

    def forget(self, key: Key) -> None:
        """The home Pod is gone."""
        self._lost.pop(key, None)

    def lost(self, key: Key) -> Object | None:
        """The last state of the Pod's own mirror, if we saw it go."""
        return self._lost.get(key)

    def __contains__(self, key: Key) -> bool:
        return key in self._places

    def __iter__(self) -> Iterator[Key]:
        """The home Pods, there or not, for which something stands at the peer."""
        return iter(self._places)

    def of(self, key: Key, local: Object | None) -> tuple[Object | None, list[Object]]:
        """The object that stands for `local`, and the others that claim to (of an earlier Pod, or copies of it)."""
        place = self._route.remote_namespace(key.namespace)

        def rank(item: Object) -> tuple[bool, bool, str, str]:
            stranger = local is None or origin(item) != local.uid
            return stranger, item.meta.namespace != place, item.meta.creation_timestamp or "", item.uid

        found = [item for remote in self._places.get(key, ()) if (item := self._remote.store.get(remote))]
        found.sort(key=rank)
        return (found[0], found[1:]) if found else (None, [])

    def own(self, local: Object) -> Object | None:
        """The mirror of exactly this Pod."""
        remote = self.of(local.key, local)[0]
        return remote if remote is not None and origin(remote) == local.uid else None

    async def look(self, key: Key) -> None:
        """Read what is at the place of a Pod's mirror, past the store; take it in when it is ours."""
        try:
            found = parse_object(await self._peer.get(PODS, self._place(key)))
        except NotFound:
            return
        if self._route.owns(found):
            self.take(found)

    def take(self, found: Object) -> None:
        """Take in what the peer has just answered with.

        If the store will not have it, it has seen newer versions than the server has now (restored from a backup):
        what follows from there would never be heard, so everything is listed anew.
        """
        self._remote.learn(found)
        if self._remote.store.get(found.key) is None and self._remote.current:
            self._remote.refresh()

    async def find(self, local: Object) -> bool:
        """Look where the lost mirror of `local` was; True when it is there after all. It gets lost labels back."""
        lost = self._lost.get(local.key)
        place = lost.key if lost else self._place(local.key)
        try:
            found = parse_object(await self._peer.get(PODS, place))
        except NotFound:
            return False
        if origin(found) != local.uid:
            return False
        if not self._route.owns(found):
            patch = {"metadata": {"uid": found.uid, "labels": self._route.labels}}
            found = parse_object(await self._peer.patch(PODS, place, patch, STRATEGIC_PATCH))
            log.warning("mirror had lost its labels", extra={"namespace": place.namespace, "pod": place.name})
        self.take(found)
        return True

    def left(self, local: Object) -> bool:
        """True when the Pod's own mirror was seen to leave, or to end, before it went: then it is truly gone."""
        lost = self._lost.get(local.key)
        return lost is not None and origin(lost) == local.uid and (lost.leaving or done(lost))

    async def delete(self, action: DeleteRemote, key: Key) -> None:
        """Carry a deletion out. Raises `Conflict` when it must be thought over."""
        if action.orphan and await self._wanted_after_all(action, key):
            raise Conflict(f"the store of home's Pods is behind: {key} is there")
        try:
            answer = await self._peer.delete(PODS, action.key, uid=action.uid, grace_s=action.grace_s)
        except NotFound:
            self._remote.forget(action.key, action.uid)
            return
        except Conflict:
            await self._read_anew(action.key, action.uid)
            raise
        if action.orphan:
            log.info("orphan removed", extra={"namespace": key.namespace, "pod": key.name, "uid": action.uid})
        if b'"deletionTimestamp"' in answer:
            self._remote.learn(parse_object(answer))

    async def _read_anew(self, place: Key, uid: str) -> None:
        """The peer says that the object of this uid is not what we think: see what is there."""
        try:
            found = parse_object(await self._peer.get(PODS, place))
        except NotFound:
            self._remote.forget(place, uid)
            return
        if found.uid != uid:
            self._remote.forget(place, uid)
        if self._route.owns(found):
            self._remote.learn(found)

    async def _wanted_after_all(self, action: DeleteRemote, key: Key) -> bool:
        """Ask home itself before removing what only our store says is not wanted."""
        held = self._remote.store.get(action.key)
        try:
            local = parse_object(await self._home.get(PODS, key))
        except NotFound:
            return False
        return held is not None and local.uid == origin(held) and local.spec().get("nodeName") == self._route.node

    def _place(self, key: Key) -> Key:
        return Key(self._route.remote_namespace(key.namespace), key.name)
