"""Peer objects at home: gather, decide, do. The fleet is told what to serve, each Peer how it goes with it.

All Peers are decided on together (`objects`), then each is looked at by itself: it gets our finalizer before anything
is begun for it, its status when there is news, and its way out when it is deleted. What runs goes on with the last
settings that were good: an edit that cannot be used, or a Secret that vanishes, is told and stops nothing. Made by
`app`.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from vnode import names
from vnode.config import PeerSpec
from vnode.errors import NotFound
from vnode.kube.client import MERGE_PATCH, PEERS
from vnode.kube.credentials import Credentials, HeldKubeconfig
from vnode.kube.objects import JsonDict, Key, Object, parse_object
from vnode.kube.watch import Event
from vnode.peers.departure import Departure
from vnode.peers.fleet import Fleet, Wanted
from vnode.peers.home import Home
from vnode.peers.objects import DEFAULT_KEY, Decision, abandon_at, decide
from vnode.peers.renewal import Keep, in_secret
from vnode.peers.secrets import Secrets
from vnode.peers.source import PeerSource
from vnode.peers.status import Facts, PeerStatus, Said, as_json, peer_status, read_status
from vnode.runtime.controller import Controller, keep
from vnode.runtime.recorder import Recorder, Regarding
from vnode.runtime.store import Store
from vnode.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 1.0  # costs nothing: it asks nobody
NEWS_GAP_S: Final = 1.0  # between two writes of one status, when a condition changes
COUNTS_GAP_S: Final = 5.0  # when only numbers do
SETTLE_S: Final = 10.0


@dataclass(slots=True)
class _Serving:
    """What a Peer was last served with."""

    uid: str
    spec: PeerSpec
    server: object
    credentials: HeldKubeconfig
    keep: Keep


@dataclass(slots=True)
class _Leaving:
    uid: str
    departure: Departure
    task: asyncio.Task[None]


class PeerController:
    """Constructing opens nothing; `run` does the work. The kubeconfigs are in Secrets of `namespace`."""

    def __init__(
        self,
        home: Home,
        credentials: Credentials,
        fleet: Fleet,
        namespace: str,
        metrics: Metrics,
        now: Callable[[], datetime],
    ) -> None:
        self._home, self._fleet, self._metrics, self._now = home, fleet, metrics, now
        self._store = Store()
        self._source = PeerSource(home.client, credentials, self._take)
        self._namespace = namespace
        self._secrets = Secrets(home.client, namespace, self._decide)
        self._recorder = Recorder(home.client, names.USER_AGENT, now)
        self._controller = Controller("peers", home.client.side, self._reconcile, metrics, workers=4)
        self._queue = self._controller.queue
        self._decisions: dict[str, Decision] = {}
        self._serving: dict[str, _Serving] = {}
        self._leaving: dict[str, _Leaving] = {}
        self._written_at: dict[str, float] = {}
        self._group: asyncio.TaskGroup | None = None

    @property
    def listed(self) -> bool:
        """Whether it is known which Peers there are."""
        return self._store.listed

    async def run(self) -> None:
        """Follow the Peers until cancelled."""
        async with asyncio.TaskGroup() as self._group:
            self._group.create_task(self._recorder.run(), name="peers/events")
            self._group.create_task(self._secrets.run(), name="peers/secrets")
            self._group.create_task(self._source.run(), name="peers/source")
            self._group.create_task(self._controller.run(), name="peers/controller")

    def _take(self, event: Event) -> None:
        self._told(self._store.apply(event))

    def _learn(self, answer: bytes) -> Object:
        item = parse_object(answer)
        self._told(self._store.learn(item))
        return item

    def _told(self, changes: list[tuple[Key, Object | None, Object | None]]) -> None:
        if any(_intent(before) != _intent(now) for _, before, now in changes):
            self._decide()
        self._queue.add_all(key.name for key, _, _ in changes)

    def _decide(self) -> None:
        """Decide on all Peers anew, and tell the fleet."""
        uids = {peer.meta.name: peer.uid for peer in self._store}
        self._serving = {name: each for name, each in self._serving.items() if each.uid == uids.get(name)}
        served = {name: (each.spec, each.server) for name, each in self._serving.items()}
        self._decisions = decide(self._store, self._secrets.found, self._home.identity.cluster, served)
        self._secrets.follow(decision.secret for decision in self._decisions.values() if decision.secret)
        wanted: dict[str, Wanted] = {}
        for peer in self._store:
            serving = self._served(peer, self._decisions[peer.meta.name])
            if serving is not None:
                wanted[peer.meta.name] = Wanted(serving.spec, serving.credentials, serving.keep)
        self._fleet.follow(wanted, [peer.meta.name for peer in self._store if peer.leaving])
        self._queue.add_all(self._decisions)

    def _served(self, peer: Object, decision: Decision) -> _Serving | None:
        """What `peer` is served with from now on; None as long as nothing may be begun for it."""
        name, serving = peer.meta.name, self._serving.get(peer.meta.name)
        if decision.spec is not None and decision.serves and names.PEER_FINALIZER in peer.meta.finalizers:
            spec, text = decision.spec, decision.kubeconfig
            same = serving is not None and (serving.spec.kubeconfig, serving.spec.context, serving.server) == (
                spec.kubeconfig,
                spec.context,
                decision.server,
            )
            if serving is not None and same:
                serving.credentials.replace(text)  # the same apiserver: what is open stays open
                serving.spec = spec
            else:
                credentials = HeldKubeconfig(text, spec.kubeconfig, spec.context, self._now)
                entry = peer.spec()["secretRef"].get("key") or DEFAULT_KEY
                keep = in_secret(self._home.client, Key(self._namespace, decision.secret), entry, spec.context)
                serving = self._serving[name] = _Serving(peer.uid, spec, decision.server, credentials, keep)
        return serving

    async def _reconcile(self, name: str) -> float | None:
        peer = self._store.get(Key("", name))
        try:
            return await self._look(name)
        except NotFound:
            if peer is not None:
                self._told(
                    self._store.forget(peer.key, peer.uid)
                )  # kopf has missed its end: somebody took our finalizer
            return None

    async def _look(self, name: str) -> float | None:
        peer, decision = self._store.get(Key("", name)), self._decisions.get(name)
        if peer is None or decision is None:
            self._forget(name)
            return None
        if (leaving := self._leaving.get(name)) is not None and leaving.uid != peer.uid:
            self._forget(name)  # that was an earlier Peer of this name
        ours = names.PEER_FINALIZER in peer.meta.finalizers
        if peer.leaving and not ours:
            return None  # others hold it
        if not peer.leaving and not ours and decision.serves:
            peer = await self._set_finalizers(peer, [*peer.meta.finalizers, names.PEER_FINALIZER])
        departure = self._depart(peer, decision) if peer.leaving else None
        await self._tell(peer, decision, departure)
        if departure is not None and departure.done:
            await self._let_go(self._store.get(peer.key) or peer, departure)
            return None
        return LOOK_EVERY_S

    def _forget(self, name: str) -> None:
        self._written_at.pop(name, None)
        if leaving := self._leaving.pop(name, None):
            leaving.task.cancel()

    def _depart(self, peer: Object, decision: Decision) -> Departure:
        """Have the Peer's Node drained, by a task of its own."""
        name = peer.meta.name
        if name not in self._leaving:
            assert self._group is not None
            serving = self._serving.get(name)
            spec = decision.spec if serving is None else serving.spec
            node = decision.node_name if spec is None else spec.node_name
            departure = Departure(
                name,
                node,
                spec,
                self._home,
                self._fleet,
                drains=node not in self._nodes_of_others(name),
                reached=lambda: self._reached(peer),
                changed=lambda: self._queue.add(name),
            )
            task = self._group.create_task(keep(f"{name}/drain", departure.run, self._metrics), name=f"{name}/drain")
            self._leaving[name] = _Leaving(peer.uid, departure, task)
        departure = self._leaving[name].departure
        until = abandon_at(peer)
        departure.abandon_in(None if until is None else (until - self._now()).total_seconds())
        return departure

    def _nodes_of_others(self, name: str) -> set[str]:
        """The Nodes of all Peers but this one."""
        served = {each.spec.node_name for other, each in self._serving.items() if other != name}
        return served | {each.node_name for other, each in self._decisions.items() if other != name and each.serves}

    def _reached(self, peer: Object) -> bool:
        """Whether the peer has ever answered, to us or to an earlier run of ours."""
        session = self._fleet.session(peer.meta.name)
        return bool(read_status(peer.status()).peer_version or (session is not None and session.facts.version))

    async def _let_go(self, peer: Object, departure: Departure) -> None:
        if departure.left:
            log.warning("peer abandoned", extra={"peer": peer.meta.name, "left": departure.left})
            regarding = Regarding("Peer", peer.key, peer.uid, f"{names.DOMAIN}/{names.PEER_VERSION}")
            self._recorder.event(regarding, "Warning", names.PEER_ABANDONED, departure.left)
        await self._set_finalizers(peer, [each for each in peer.meta.finalizers if each != names.PEER_FINALIZER])
        log.info("peer removed", extra={"peer": peer.meta.name})

    async def _set_finalizers(self, peer: Object, finalizers: list[str]) -> Object:
        metadata: JsonDict = {
            "uid": peer.uid,
            "resourceVersion": peer.meta.resource_version,
            "finalizers": finalizers,
        }
        return self._learn(await self._home.client.patch(PEERS, peer.key, {"metadata": metadata}, MERGE_PATCH))

    async def _tell(self, peer: Object, decision: Decision, departure: Departure | None) -> None:
        """Write the Peer's status, when there is news and not again too soon."""
        name, loop = peer.meta.name, asyncio.get_running_loop()
        if decision.accepted.status == "Unknown" and departure is None:
            return  # its Secret is being read: nothing is known yet
        session = self._fleet.session(name)
        facts = session.facts if session is not None else None
        settled = facts is not None and facts.answers is not None and facts.node is not None
        if (
            departure is None
            and decision.serves
            and not settled
            and loop.time() < self._fleet.begun_at(name) + SETTLE_S
        ):
            return  # a session that has just begun, after an edit perhaps, has nothing to say yet
        before = read_status(peer.status())
        wanted = peer_status(
            before,
            peer.meta.generation,
            decision.node_name,
            accepted=decision.accepted,
            facts=facts,
            draining=_draining(name, departure, facts, reached=bool(before.peer_version)),
            failure=self._fleet.failures.get(name, ""),
            now=self._now(),
        )
        if wanted == before:
            self._fleet.failures.pop(name, None)
            return
        gap = COUNTS_GAP_S if _conditions(before) == _conditions(wanted) else NEWS_GAP_S
        last = departure is not None and departure.done
        if not last and loop.time() < self._written_at.get(name, float("-inf")) + gap:
            return
        self._written_at[name] = loop.time()
        patch = {"metadata": {"uid": peer.uid}, "status": as_json(wanted)}
        self._learn(await self._home.client.patch(PEERS, peer.key, patch, MERGE_PATCH, subresource="status"))
        self._fleet.failures.pop(name, None)


def _intent(peer: Object | None) -> object:
    """What of a Peer is somebody's wish, and not its status."""
    if peer is None:
        return None
    meta = peer.meta
    return meta.uid, meta.generation, meta.deletion_timestamp, meta.annotations, meta.finalizers


def _conditions(status: PeerStatus) -> object:
    return [(each.type, each.status, each.reason, each.observed_generation) for each in status.conditions]


def _draining(name: str, departure: Departure | None, facts: Facts | None, *, reached: bool) -> Said:
    if departure is None:
        return Said("False", names.IN_SERVICE)
    if departure.done and departure.left:
        return Said("True", names.PEER_ABANDONED, departure.left)
    message = departure.message
    if reached and (facts is None or facts.refusal or facts.answers is False):
        way_out = f"kubectl annotate peer {name} {names.ABANDON_AFTER}=0s"
        message += f"; the peer cannot be reached, if it is gone for good: {way_out}"
    return Said("True", names.DRAINING, message)
