"""One peer's Pod loop: gather a pair from the two stores, `plan` it, carry the one next step out.

Pod-down and status-up share the queue and the plan, so they cannot disagree. Answers of our own writes go into the
stores at once: nothing is decided on what we ourselves have made old. Built by `peers.session`.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from typing import Final

from vnode import names
from vnode.errors import Conflict, NotFound, Rejected, Unavailable
from vnode.kube.client import PODS, STRATEGIC_PATCH, Client
from vnode.kube.objects import Json, Key, Object, parse_object
from vnode.pods.mirrors import Mirrors, origin
from vnode.pods.plan import Action, Create, DeleteRemote, Refuse, ReleaseLocal, Update, WriteStatus, plan
from vnode.pods.status import View, done, remote_condition_patch, started, unready_patch
from vnode.pods.surroundings import Surroundings, needs
from vnode.pods.translate import references
from vnode.policy.route import Reference, Refused, Route
from vnode.runtime.controller import REJECTED_RETRY_S, Controller
from vnode.runtime.informer import Informer
from vnode.runtime.recorder import Recorder, Regarding
from vnode.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

WORKERS: Final = 16  # more only wait for the same apiservers, at more CPU: 32 cost a quarter more in a burst
REFUSED_CAP_S: Final = 120.0
LINGER_S: Final = 0.1  # a mirror's end follows its last status at once, as a rule: then the release says it all


class PodController:
    """`local` follows the Pods bound to our node, `remote` our objects at the peer.

    `serves` is False while the Node of our name is not ours: its Pods are somebody else's, and none is touched.
    `accepts` is False once the Node is being taken out: what is there is brought to its end, nothing new is begun.
    """

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
        serves: Callable[[], bool],
        accepts: Callable[[], bool],
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
        self._serves = serves
        self._accepts = accepts
        self._surroundings = surroundings
        self._recorder = recorder
        self._now = now
        self._mirrors = Mirrors(home, peer, local, remote, route)
        self._uncertain: set[Key] = set()  # a create whose answer never came: look before anything else
        self._refusals: dict[Key, int] = {}  # how often in a row, for the delay until the next try
        self._begun = False
        self._away = False
        self._lingered: set[Key] = set()  # leaving, and their last status has waited for the mirror's end
        self._bound_at: dict[Key, float] = {}
        self._changed_at: dict[Key, float] = {}
        self.controller: Controller[Key] = Controller("pods", peer.side, self._reconcile, metrics, WORKERS)
        self._hop_down = metrics.hop_down.labels(peer.side)
        self._hop_up = metrics.hop_up.labels(peer.side)
        metrics.pods.labels(peer.side, "home").set_function(lambda: len(local.store))
        metrics.pods.labels(peer.side, "peer").set_function(lambda: len(remote.store))
        local.on_change(self._local_changed)
        remote.on_change(self._remote_changed)
        remote.on_listed(self._look_at_all)

    def begin(self) -> None:
        """The stores are full: say what every Pod needs, and look at them all."""
        self._begun = True
        for local in self._local.store:
            self._say_needs(local)
        self._look_at_all()

    def peer_away(self, away: bool) -> None:
        """The peer does not answer any more, or does again. Meanwhile it is the probe that asks, not every Pod."""
        self._away = away
        self._look_at_all()

    def _look_at_all(self) -> None:
        """What is to go comes first."""
        orphans = [key for key in self._mirrors if self._local.store.get(key) is None]
        held = sorted(self._local.store, key=lambda local: not local.leaving)
        self.controller.queue.add_all([*orphans, *(local.key for local in held)])

    def locate(self, namespace: str, name: str) -> tuple[Key | None, Object] | None:
        """A Pod of this node, and the key of its own mirror: None while there is none with a node. None if not our Pod.

        Never a place where the mirror merely should be: somebody else's Pod may be there.
        """
        local = self._local.store.get(Key(namespace, name))
        if local is None:
            return None
        mirror = self._mirrors.own(local)
        return (mirror.key if mirror and mirror.spec().get("nodeName") else None), local

    def pairs(self) -> Iterator[tuple[Object, Object | None]]:
        """Every Pod of this node, with the mirror that stands for it and no other of its name."""
        for local in self._local.store:
            yield local, self._mirrors.own(local)

    def look_at(self, keys: Iterable[Key]) -> None:
        """Have those of these Pods looked at that wait for a mirror."""
        self.controller.queue.add_all(key for key in keys if key not in self._mirrors)

    def wake(self, namespace: str) -> None:
        """The namespace's labels are others now: it may be offloaded where it was not."""
        self.look_at([local.key for local in self._local.store if local.meta.namespace == namespace])

    def _local_changed(self, key: Key, before: Object | None, now: Object | None) -> None:
        if now is None:
            self._surroundings.use(key, ())
            self._mirrors.forget(key)
            self._bound_at.pop(key, None)
            self._lingered.discard(key)
            self._refusals.pop(key, None)
        elif self._begun and key in self._mirrors and (before is None or before.raw_spec != now.raw_spec or done(now)):
            self._say_needs(now)  # without a mirror, its creation says it
        if now is not None and (before is None or before.uid != now.uid) and key not in self._mirrors:
            self._bound_at[key] = asyncio.get_running_loop().time()
        self.controller.queue.add(key)

    def _say_needs(self, local: Object) -> None:
        """A Pod that stays home has nothing copied: not one Secret leaves a namespace that is not offloaded."""
        travels = self._offloads(local.meta.namespace) or local.key in self._mirrors
        needed: set[Reference] = set()
        if travels and not done(local):
            needed = needs(local, self._mirrors.own(local), self._route, self._surroundings.holds)
        self._surroundings.use(local.key, needed)

    def _remote_changed(self, _: Key, before: Object | None, now: Object | None) -> None:
        key = self._mirrors.changed(before, now)
        self._changed_at.setdefault(key, asyncio.get_running_loop().time())
        self.controller.queue.add(key)

    async def _reconcile(self, key: Key) -> float | None:
        if not self._serves():
            return REJECTED_RETRY_S  # the Node of our name is not ours: nor are its Pods
        local = self._local.store.get(key)
        if self._away and local is not None and (patch := unready_patch(local, self._now())):
            # Node lifecycle does this for a node that is silent, not for one that says it is NotReady
            # (`monitorNodeHealth`, v1.37; kubernetes#109998): Services would go on sending traffic into the void.
            await self._write_status(local, patch)
        if not self._begun or (self._away and (key in self._mirrors or key in self._uncertain)):
            return None  # all are looked at again when the stores are full, or the peer is back
        if key in self._uncertain:
            await self._mirrors.look(key)
            self._uncertain.discard(key)
            local = self._local.store.get(key)
        remote, others = self._mirrors.of(key, local)
        for other in others:
            if not other.leaving:
                # A copy of the mirror, made by hand or by a backup, is not asked for at home: it claims what is there.
                copy = remote is not None and origin(other) == origin(remote)
                await self._mirrors.delete(DeleteRemote(other.key, other.uid, orphan=not copy), key)
                return 0.0  # both sides may have changed meanwhile
        if remote is not None and not self._remote.current_in(remote.meta.namespace) and local is not None:
            return None  # an old state is not told; the list that is under way has all looked at again
        action = plan(local, remote, self._mirrors.lost(key), self._route, self._view, self._now())
        if action is None:
            self._changed_at.pop(key, None)
            return None
        if local is not None and remote is None and await self._may_be_there(local, action):
            return None
        return await self._carry_out(action, key, local)

    async def _may_be_there(self, local: Object, action: Action) -> bool:
        """True when `action` would end, or let go, a Pod whose mirror may be there after all: it was not seen to leave,
        and our view is old (the next list has all looked at again) or the peer has it, without its labels perhaps."""
        ends = isinstance(action, WriteStatus | ReleaseLocal) and started(local)
        if not ends or self._mirrors.left(local):
            return False
        place = self._route.remote_namespace(local.meta.namespace)
        return not self._remote.current_in(place) or await self._mirrors.find(local)

    async def _carry_out(self, action: Action, key: Key, local: Object | None) -> float | None:
        if isinstance(action, DeleteRemote):
            await self._mirrors.delete(action, key)
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
                if local.leaving and not local.meta.finalizers and key not in self._lingered:
                    self._lingered.add(key)
                    return LINGER_S
                await self._write_status(local, patch)
                if (changed_at := self._changed_at.pop(key, None)) is not None:
                    self._hop_up.observe(asyncio.get_running_loop().time() - changed_at)
            case ReleaseLocal(uid):
                with suppress(NotFound):  # gone already: the watch will say so
                    await self._home.delete(PODS, key, uid=uid, grace_s=0)
                log.debug("released", extra={"namespace": key.namespace, "pod": key.name, "uid": uid})
            case Refuse(reason, message):
                return await self._refuse(local, reason, message)
        return None

    async def _create(self, manifest: Json, local: Object) -> float | None:
        namespace = local.meta.namespace
        if self._away:
            return None  # all are looked at again when it is back
        if not self._accepts():
            return REJECTED_RETRY_S  # the Node is being taken out: its Pods are somebody's to delete
        if not self._offloads(namespace):
            message = f"namespace {namespace} is not selected for offloading to {self._peer.side}"
            await self._refuse(local, names.NAMESPACE_NOT_OFFLOADED, message)
            return None  # a change of the namespace brings us back (`wake`)
        wanted = references(manifest["spec"])
        self._surroundings.use(local.key, wanted)
        try:
            missing = await self._surroundings.prepare(namespace, wanted)
        except Refused as refused:
            return await self._refuse(local, refused.reason, str(refused))
        except Rejected as error:
            return await self._refuse(local, names.REMOTE_REFUSED, error.message)
        required = [f'{reference.kind} "{reference.name}"' for reference in missing if not reference.optional]
        if required:
            return await self._refuse(local, names.REFERENCE_NOT_FOUND, f"{', '.join(required)} not found")
        now = self._local.store.get(local.key)
        if now is None or now.uid != local.uid or now.leaving:
            return 0.0  # it went while we prepared
        try:
            answer = await self._peer.create(PODS, manifest["metadata"]["namespace"], manifest)
        except NotFound:
            self._surroundings.doubt(namespace)
            raise
        except Conflict:
            await self._mirrors.look(local.key)
            if local.key not in self._mirrors:
                message = f"a Pod of this name in {manifest['metadata']['namespace']} at the peer is not ours"
                return await self._refuse(local, names.REMOTE_NAME_TAKEN, message)
            return 0.0
        except Rejected as error:
            return await self._refuse(local, names.REMOTE_REFUSED, error.message)
        except (Unavailable, TimeoutError):
            self._uncertain.add(local.key)
            raise
        self._mirrors.take(parse_object(answer))
        self._refusals.pop(local.key, None)
        if (bound_at := self._bound_at.pop(local.key, None)) is not None:
            self._hop_down.observe(asyncio.get_running_loop().time() - bound_at)
        log.debug("mirrored", extra={"namespace": namespace, "pod": local.meta.name, "uid": local.uid})
        return None

    async def _write_status(self, local: Object, patch: Json) -> None:
        try:
            # Not only the uid: somebody may just have ended the Pod, and what is final must not be written over.
            metadata = {**patch["metadata"], "resourceVersion": local.meta.resource_version}
            patch = {**patch, "metadata": metadata}
            answer = await self._home.patch(PODS, local.key, patch, STRATEGIC_PATCH, subresource="status")
        except NotFound:
            return  # the watch will say so
        self._local.learn(parse_object(answer))

    async def _refuse(self, local: Object, reason: str, message: str) -> float:
        """Tell the user, on the Pod's condition and by an Event; look again later, for not every cure is an event."""
        patch = remote_condition_patch(local, reason, message, self._now())
        if patch is not None:
            self._recorder.event(Regarding("Pod", local.key, local.uid), "Warning", reason, message)
            await self._write_status(local, patch)
        tries = self._refusals[local.key] = self._refusals.get(local.key, -1) + 1
        return float(min(REFUSED_CAP_S, REJECTED_RETRY_S * 2 ** min(tries, 10)))
