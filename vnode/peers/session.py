"""One peer, connected: builds its informers, controllers, Node and kubelet port, and runs them as one tree of tasks.

Inside a session any loss ends all (a Lease without a Pod loop is a lie); `app` starts it anew. Made from an immutable
`PeerSpec`; a changed spec is another session.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from datetime import datetime

from vnode.config import PeerSpec
from vnode.kube.client import NODES, PODS, Client
from vnode.kube.credentials import Credentials
from vnode.kube.objects import Key, utc_now
from vnode.kube.watch import Source
from vnode.kubelet.auth import Door
from vnode.kubelet.certificate import ServingCertificate
from vnode.kubelet.reports import Reports
from vnode.kubelet.request import Bound, Located, NotStarted
from vnode.kubelet.server import KubeletServer
from vnode.kubelet.stats import Stats
from vnode.node.controller import NodeController
from vnode.node.heartbeat import last_renewed
from vnode.node.view import nodes_informer, others_informer, quotas_informer
from vnode.peers.home import Home
from vnode.peers.leftovers import Leftovers
from vnode.peers.reach import Reach
from vnode.peers.renewal import Keep, TokenRenewal
from vnode.peers.rights import may_list, watch_refusals
from vnode.peers.status import Facts, Said
from vnode.peers.tally import Tally
from vnode.pods.controller import PodController
from vnode.pods.status import View
from vnode.reflect.announcer import Announcer
from vnode.reflect.controller import Reflector
from vnode.reflect.kinds import KINDS
from vnode.reflect.namespaces import RemoteNamespaces
from vnode.runtime.informer import Informer
from vnode.runtime.recorder import Recorder
from vnode.telemetry import log as logs
from vnode.telemetry.metrics import Metrics

log = logging.getLogger(__name__)


class Session:
    """Runs one peer's virtual Node. Constructing opens nothing."""

    def __init__(
        self,
        spec: PeerSpec,
        credentials: Credentials,
        keep: Keep,
        home: Home,
        metrics: Metrics,
        works: Callable[[], None],
        registers: Callable[[], bool],
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        """`keep` puts renewed tokens where `credentials` find them.

        `works` is called once the stores are full and the controllers run.
        `registers` is False once the Node is only to be taken out.
        """
        self.spec = spec
        self._works = works
        self._registers = registers
        identity, node = home.identity, spec.node_name
        self.home = home
        self._names = spec.namespace_map(identity.cluster)
        self._peer = peer = Client(credentials, spec.name, metrics)
        self._renewal = TokenRenewal(peer, credentials, keep, now)
        self._route = route = spec.route(identity.cluster, identity.cluster_uid)
        ours, places = {"labelSelector": route.selector}, self._names.places
        self._local = Informer("home-pods", Source(home.client, PODS, {"fieldSelector": f"spec.nodeName={node}"}))
        self._remote = Informer("peer-pods", Source(peer, PODS, ours), namespaces=places)
        reflected = {
            kind: Informer(
                f"peer-{resource.plural}", Source(peer, resource, ours, metadata_only=True), namespaces=places
            )
            for kind, resource in KINDS.items()
        }
        self._forbidden = ""
        self._tally = Tally()
        self._local.on_change(self._tally.changed)
        self._recorder = Recorder(home.client, node, now)
        self._namespaces = RemoteNamespaces(peer, route, home.namespaces.store, given=self._names.mapped_only)
        self._reflector = Reflector(
            home=home.client,
            peer=peer,
            route=route,
            namespaces=self._namespaces,
            local=home.reflected,
            remote=reflected,
            arrived=lambda pods: self._pods.look_at(pods),
            metrics=metrics,
        )
        self._pods = PodController(
            home=home.client,
            peer=peer,
            local=self._local,
            remote=self._remote,
            route=route,
            view=View(home.address, show_pod_ips=spec.network.podIPs == "flat"),
            offloads=self._offloads,
            serves=lambda: self._node is not None and not self._node.problem,
            accepts=lambda: self._node is not None and not self._node.leaving,
            surroundings=self._reflector,
            recorder=self._recorder,
            metrics=metrics,
            now=now,
        )
        self.leftovers = Leftovers(
            home=home,
            peer=peer,
            node=node,
            local=self._local,
            remote=self._remote,
            copies=list(reflected.values()),
            reflector=self._reflector,
            namespaces=self._namespaces,
        )
        self._announcer = Announcer(home.client, peer, self._local.store, self._remote.store, metrics, places)
        self._metrics, self._now = metrics, now
        self._port = 0
        self._node: NodeController | None = None
        self._kubelet = KubeletServer(
            node=node,
            address=home.address,
            port=0,
            door=Door(home.client, node, home.authority, now),
            locate=self._locate,
            reports=Reports(
                node, self._bound, Stats(peer, route.selector, self._bound, now, places), metrics, lambda: self.unready
            ),
            certificate=ServingCertificate(home.client, node, [home.address], now),
            metrics=metrics,
        )
        self._filling = [self._local, self._remote, *reflected.values()]
        shared = (home.namespaces, *home.reflected.values())
        self._reach = Reach(home.client, peer, (self._local, *shared), self._filling[1:], self._pods, self._reflector)

    @property
    def unready(self) -> list[str]:
        """What is not filled yet, for `/readyz`; empty when the session works."""
        problems = [self._node.problem] if self._node is not None and self._node.problem else []
        return problems + [
            f"{self.spec.name}: {informer.name} not synced" for informer in self._filling if not informer.is_synced
        ]

    @property
    def facts(self) -> Facts:
        """What is known of the peer now."""
        pods, namespaces = self._tally.pods, self._tally.namespaces
        if self._node is None:
            return Facts(pods=pods, namespaces=namespaces)
        probe, ready = self._node.probe, self._node.shown
        return Facts(
            answers=None if probe.verdict is None else probe.verdict.up,
            error="" if probe.verdict is None else probe.verdict.error,
            refusal=probe.refusal,
            forbidden=self._forbidden,
            node=None if ready is None else Said("True" if ready.status else "False", ready.reason, ready.message),
            version=self._node.version,
            pods=pods,
            namespaces=namespaces,
            round_trip_s=probe.round_trip_s,
        )

    async def run(self) -> None:
        """Run until cancelled, or until a part fails."""
        with logs.fields(peer=self.spec.name, node=self.spec.node_name):
            try:
                await self._run()
            finally:
                await self._peer.close()

    async def _run(self) -> None:
        opened = asyncio.Event()

        def started(port: int) -> None:
            self._port = port
            opened.set()

        async with asyncio.TaskGroup() as group:
            group.create_task(self._recorder.run(), name=f"{self.spec.name}/events")
            group.create_task(self._kubelet.run(started), name=f"{self.spec.name}/kubelet")
            await opened.wait()
            last_alive = await last_renewed(self.home.client, self.spec.node_name)
            group.create_task(self._renewal.run(), name=f"{self.spec.name}/credential")
            node = self._node = await self._make_node(group)
            node.on_peer_change(self._reach.peer_changed)
            group.create_task(node.run(), name=f"{self.spec.name}/node")
            for informer in self._filling:
                group.create_task(informer.run(), name=f"{self.spec.name}/{informer.name}")
            kinds = (PODS, *KINDS.values())
            group.create_task(
                watch_refusals(self._peer, kinds, self._names.places, self._is_synced, self._refused),
                name=f"{self.spec.name}/rights",
            )
            await self._local.synced()
            await node.registered()
            group.create_task(self._pods.controller.run(), name=f"{self.spec.name}/pods")
            # Decide only on full stores: a mirror not listed yet would be made twice.
            for informer in (*self._filling, self.home.namespaces, *self.home.reflected.values()):
                await informer.synced()
            self._pods.begin()
            group.create_task(self._reflector.run(), name=f"{self.spec.name}/reflect")
            group.create_task(self._announcer.run(last_alive), name=f"{self.spec.name}/events-up")
            group.create_task(self.leftovers.sweep(self._pods.wake), name=f"{self.spec.name}/namespaces")
            node.allow_ready()
            self._works()
            log.info("peer session works", extra={"pods": len(self._local.store), "mirrors": len(self._remote.store)})

    def _is_synced(self) -> bool:
        return all(informer.is_synced for informer in self._filling)

    def _refused(self, message: str) -> None:
        self._forbidden = message

    async def _make_node(self, group: asyncio.TaskGroup) -> NodeController:
        nodes = others = quotas = None
        if self._names.mapped_only:
            quotas = quotas_informer(self._peer, self._names.places)
        elif await may_list(self._peer, NODES):
            nodes = nodes_informer(self._peer)
            if await may_list(self._peer, PODS):
                others = others_informer(self._peer, self.home.identity.cluster_uid)
        for informer in filter(None, (nodes, others, quotas)):
            self._reach.of_peer.append(informer)
            group.create_task(informer.run(), name=f"{self.spec.name}/{informer.name}")
        return NodeController(
            home=self.home.client,
            peer=self._peer,
            spec=self.spec,
            identity=self.home.identity,
            address=self.home.address,
            port=lambda: self._port,
            nodes=nodes,
            others=others,
            quotas=quotas,
            metrics=self._metrics,
            recorder=self._recorder,
            registers=self._registers,
            now=self._now,
            home_returned=self._reach.home_returned,
        )

    async def stop(self, reason: str) -> None:
        """Have the Node say that nobody serves it now."""
        if self._node is not None:
            await self._node.stop(reason)

    def _offloads(self, namespace: str) -> bool:
        found = self.home.namespaces.store.get(Key("", namespace))
        return found is not None and self._names.offloads(namespace, found.meta.labels)

    def _locate(self, namespace: str, pod: str) -> Located | None:
        found = self._pods.locate(namespace, pod)
        if found is None:
            return None
        place, local = found
        if place is None:
            raise NotStarted("PodInitializing" if local.spec().get("initContainers") else "ContainerCreating")
        return Located(self._peer, place, local.uid)

    def _bound(self) -> Iterable[Bound]:
        return (Bound(local, remote) for local, remote in self._pods.pairs())
