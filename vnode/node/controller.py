"""Keeps the virtual Node at home as it should be: registers it, reports the peer's state, undoes hand edits.

One queue of two keys: `_NODE`, looked at whenever the Node, the probe's verdict or our own readiness changes, and
`_CAPACITY`, at most every 2 s, which sums the peer up anew. What is wanted comes from `manifest`, the way there from
`patches`; here are only the reading, the writing and the order of things. Made by `peers.session`, one for each peer.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from vnode import names
from vnode.config import PeerSpec
from vnode.kube.client import MERGE_PATCH, NODES, STRATEGIC_PATCH, Client
from vnode.kube.objects import Key, Object, parse_object, utc_now
from vnode.kube.watch import Source
from vnode.node import manifest, patches
from vnode.node.capacity import NOTHING
from vnode.node.heartbeat import Lease, Probe, Verdict
from vnode.node.manifest import Identity, Wanted
from vnode.node.pace import Pace
from vnode.node.view import PeerView
from vnode.runtime.controller import Controller
from vnode.runtime.informer import Informer
from vnode.runtime.recorder import Recorder, Regarding
from vnode.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = patches.REPORT_EVERY.total_seconds() + 1
FOREIGN_LOOK_S: Final = 30.0
CAPACITY_GAP_S: Final = 2.0
START_GRACE: Final = timedelta(seconds=30)  # a restart shorter than the Lease need not be seen
VERSION_RETRY_S: Final = 10.0
STOP_LIMIT_S: Final = 3.0
_NODE: Final = "node"
_CAPACITY: Final = "capacity"


class NodeController:
    """The virtual Node of one peer, with its Lease and the peer's probe.

    `nodes`, `others` and `quotas` come from `node.view`; the caller runs them, after making this. `port` gives the
    kubelet port, 0 as long as it is not open. `registers` is False once the Node is only to be taken out: it is not
    made again.
    """

    def __init__(
        self,
        *,
        home: Client,
        peer: Client,
        spec: PeerSpec,
        identity: Identity,
        address: str,
        port: Callable[[], int],
        nodes: Informer | None,
        others: Informer | None,
        metrics: Metrics,
        recorder: Recorder,
        registers: Callable[[], bool],
        quotas: Informer | None = None,
        now: Callable[[], datetime] = utc_now,
        home_returned: Callable[[Informer], None] = Informer.refresh,
    ) -> None:
        self.name = spec.node_name
        self.problem = ""  # why there is no Node of ours, for `/readyz` and the log
        self._home, self._spec, self._identity = home, spec, identity
        self._address, self._port, self._now, self._recorder = address, port, now, recorder
        self._registers = registers
        self._controller = Controller("node", spec.name, self._look, metrics, workers=1)
        self._queue = self._controller.queue
        self._own = Informer(f"{self.name}-node", Source(home, NODES, {"fieldSelector": f"metadata.name={self.name}"}))
        self._own.on_change(self._own_changed)
        self._view = PeerView(
            peer, spec, nodes, others, lambda: self._queue.add_after(_CAPACITY, CAPACITY_GAP_S), quotas
        )
        self._lease = Lease(home, self.name, lambda: self.uid, now, lambda: home_returned(self._own))
        self.probe = Probe(peer, spec.name, self._heard, metrics)
        self._on_peer: list[Callable[[Verdict], None]] = []
        self._started = now()
        self._allowed = False
        self._stopped = ""
        self._removed = False
        self._at_rest = asyncio.Event()
        self._registered = asyncio.Event()
        self._pace = Pace(self.name)
        # What the apiserver, or a webhook of it, left out of our last write: not to be written again and again.
        self._in_vain: dict[str, Mapping[str, Any]] = {}

    @property
    def uid(self) -> str:
        """The uid of our Node, "" while there is none."""
        node = self._own.store.get(Key("", self.name))
        return node.uid if node is not None and self._is_ours(node) else ""

    @property
    def shown(self) -> manifest.Condition | None:
        """The Ready condition of our Node as home has it."""
        node = self._own.store.get(Key("", self.name))
        return manifest.shown_condition(node, "Ready") if node is not None and self._is_ours(node) else None

    @property
    def version(self) -> str:
        """The peer's Kubernetes version, "" as long as it is not known."""
        return self._view.version

    @property
    def leaving(self) -> bool:
        """True once somebody takes the Node out for good."""
        node = self._own.store.get(Key("", self.name))
        out = self._removed or not self._registers()
        return out or (node is not None and names.REMOVING in node.meta.annotations)

    async def registered(self) -> None:
        """Wait until there is a Node of that name and it is ours: only then are its Pods ours, too."""
        await self._registered.wait()

    def on_peer_change(self, handler: Callable[[Verdict], None]) -> None:
        """Call `handler` with each change of the probe's verdict."""
        self._on_peer.append(handler)

    def allow_ready(self) -> None:
        """From now on the Node may be Ready: the stores of Pods are filled, the kubelet port is open."""
        self._allowed = True
        self._queue.add(_NODE)

    async def run(self) -> None:
        """Register the Node and keep it, until cancelled."""
        async with asyncio.TaskGroup() as group:

            def start(name: str, work: Any) -> None:
                group.create_task(work, name=f"{self._spec.name}/node/{name}")

            self._started = self._now()
            start("own", self._own.run())
            start("probe", self.probe.run())
            await self._own.synced()
            start("lease", self._lease.run())
            start("controller", self._controller.run())
            self._queue.add(_CAPACITY)
            self._queue.add(_NODE)
            await self._view.synced()
            self._queue.add(_CAPACITY)  # an empty list changes nothing, and so tells nobody

    async def stop(self, reason: str) -> None:
        """Have the Node say NotReady, `VnodeStopped` with `reason`; to be called while `run` runs.

        Returns once it is written, or after 3 s whatever became of it. Nothing later makes it Ready, or makes it again.
        """
        self._stopped = reason
        self._at_rest.clear()
        self._queue.add(_NODE)
        try:
            async with asyncio.timeout(STOP_LIMIT_S):
                await self._at_rest.wait()
        except TimeoutError:
            log.warning("node not marked as stopped in time", extra={"node": self.name})

    def _heard(self, verdict: Verdict) -> None:
        if verdict.up:
            log.info("peer answers", extra={"peer": self._spec.name})
            self._view.forget_version()
        else:
            log.warning("peer does not answer", extra={"peer": self._spec.name, "error": verdict.error})
        self._queue.add(_NODE)
        for handler in self._on_peer:
            handler(verdict)

    def _own_changed(self, _: Key, before: Object | None, now: Object | None) -> None:
        if now is None and before is not None and self._is_ours(before) and names.REMOVING in before.meta.annotations:
            self._removed = True
            log.info("node removed for good, take its peer out of the configuration", extra={"node": self.name})
        self._queue.add(_NODE)

    def _is_ours(self, node: Object) -> bool:
        return node.meta.annotations.get(names.CLUSTER_UID) == self._identity.cluster_uid

    async def _look(self, key: str) -> float | None:
        if key == _CAPACITY:
            before = self._view.capacity
            again = self._view.sum_up()
            if self._view.capacity != before:
                self._queue.add(_NODE)
            return again
        stopped = self._stopped  # a stop that comes during this look is the next one's
        again = await self._bring_about()
        if stopped and again is None:
            self._at_rest.set()
        return again

    async def _bring_about(self) -> float | None:
        """Bring the Node to what is wanted now; when to look again, None when all is done for good."""
        node = self._own.store.get(Key("", self.name))
        if node is not None and not self._is_ours(node):
            return self._refuse(node)
        self.problem = ""
        if node is None and not self._registers():
            self._registered.set()  # nobody else has the name either: what is left of its Pods is ours to end
            return None
        if self._removed or (self._stopped and node is None):
            return None
        gap = self._pace.wait_s()
        if gap > 0 and not self._stopped:
            return gap
        verdict = self.probe.verdict
        if not self._stopped and not self._view.version_known and verdict is not None and verdict.up:
            await self._view.ask_version()
        if node is None:
            await self._register()
        else:
            await self._amend(node)
        self._registered.set()
        return None if self._stopped else self._next_look_s()

    def _next_look_s(self) -> float:
        if not self._view.version_known:
            return VERSION_RETRY_S
        grace = (self._started + START_GRACE - self._now()).total_seconds()
        return grace + 1 if grace > 0 and not self._allowed else LOOK_EVERY_S

    def _refuse(self, node: Object) -> float | None:
        message = (
            f"the Node {self.name} is not this vnode's "
            f"(its annotation {names.CLUSTER_UID}: {node.meta.annotations.get(names.CLUSTER_UID, 'absent')}); "
            f"set node.name of peer {self._spec.name} to another name, or delete that Node"
        )
        if message != self.problem:
            self.problem = message
            log.error("node name taken", extra={"peer": self._spec.name, "node": self.name, "error": message})
            self._event(names.NODE_NAME_TAKEN, message, good=False)
        return None if self._stopped else FOREIGN_LOOK_S

    def _wanted(self, node: Object | None) -> Wanted:
        shown = manifest.shown_facts(node) if node is not None else manifest.PeerFacts()
        return manifest.wanted_node(
            self._spec,
            self._identity,
            address=self._address,
            port=self._port(),
            facts=self._view.facts() or shown,
            capacity=NOTHING if node is None and self._view.capacity is None else self._view.capacity,
            ready=self._ready(node),
        )

    def _ready(self, node: Object | None) -> manifest.Condition:
        verdict = self.probe.verdict
        ready = manifest.ready_condition(
            self._spec.name,
            stopped=self._stopped,
            unreachable=None if verdict is None else verdict.error,
            missing=["its own stores"] * (not self._allowed) + ["the peer's nodes"] * (self._view.capacity is None),
        )
        shown = manifest.shown_condition(node, "Ready") if node is not None else None
        in_grace = self._now() < self._started + START_GRACE
        return shown if ready.reason == names.VNODE_STARTING and shown and shown.status and in_grace else ready

    async def _register(self) -> None:
        wanted = self._wanted(None)
        node = parse_object(await self._home.create(NODES, "", manifest.new_node(self.name, wanted, self._now())))
        self._own.learn(node)
        self._pace.wrote({})
        log.info("node registered", extra={"peer": self._spec.name, "node": self.name, "uid": node.uid})

    async def _amend(self, node: Object) -> None:
        key, wanted = Key("", self.name), self._wanted(node)
        written: dict[str, Any] = {}
        changes = patches.metadata_changes(node, wanted)
        if changes and changes != self._in_vain.get("metadata"):
            node = parse_object(await self._home.patch(NODES, key, patches.onto(node, changes), MERGE_PATCH))
            self._in_vain["metadata"] = patches.metadata_changes(node, wanted)
            written["metadata"] = changes
            self._own.learn(node)
        changes = patches.status_changes(node, wanted)
        if changes == self._in_vain.get("status"):
            changes = {}
        if changes or patches.report_due(node, self._now()):
            patch = patches.onto(node, patches.timed(changes, node, wanted, self._now()))
            node = parse_object(await self._home.patch(NODES, key, patch, STRATEGIC_PATCH, subresource="status"))
            self._in_vain["status"] = patches.status_changes(node, wanted)
            written["status"] = changes
            self._own.learn(node)
            if any(condition["type"] == "Ready" for condition in changes.get("conditions", ())):
                self._tell(wanted.conditions[-1])
        if written:
            self._pace.wrote(written)

    def _tell(self, ready: manifest.Condition) -> None:
        log.info("node condition", extra={"node": self.name, "ready": ready.status, "reason": ready.reason})
        if ready.reason == names.PEER_UNREACHABLE:
            self._event(ready.reason, ready.message, good=False)
        elif ready.status:
            self._event(names.PEER_REACHABLE, ready.message, good=True)

    def _event(self, reason: str, message: str, *, good: bool) -> None:
        # As a kubelet's, Events about a Node carry its name as uid: `kubectl describe node` looks for that.
        regarding = Regarding("Node", Key("", self.name), self.name)
        self._recorder.event(regarding, "Normal" if good else "Warning", reason, message)
