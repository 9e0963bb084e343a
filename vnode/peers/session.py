"""One peer, connected: builds its informers, controllers, Node and kubelet port, and runs them as one tree of tasks.

Inside a session any loss ends all (a Lease without a Pod loop is a lie); `app` starts it anew. Made from an immutable
`PeerSpec`; a changed spec is another session.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from vnode.config import PeerSpec
from vnode.errors import ApiError, Conflict, NotFound, Rejected, Unauthorized
from vnode.kube.client import NODES, PODS, Client, Resource
from vnode.kube.credentials import from_kubeconfig
from vnode.kube.objects import Key, Object, utc_now
from vnode.kube.watch import Source
from vnode.kubelet.auth import Door
from vnode.kubelet.authority import ClientAuthority
from vnode.kubelet.certificate import ServingCertificate
from vnode.kubelet.reports import Reports
from vnode.kubelet.request import Bound, Located, NotStarted
from vnode.kubelet.server import KubeletServer
from vnode.kubelet.stats import Stats
from vnode.node.controller import NodeController
from vnode.node.heartbeat import Verdict, last_renewed
from vnode.node.manifest import Identity
from vnode.node.view import nodes_informer, others_informer, quotas_informer
from vnode.peers.renewal import TokenRenewal, in_file
from vnode.pods.controller import PodController
from vnode.pods.status import View
from vnode.reflect.announcer import Announcer
from vnode.reflect.controller import Reflector
from vnode.reflect.kinds import KINDS
from vnode.reflect.namespaces import RemoteNamespaces
from vnode.runtime.covering import CoveringInformer
from vnode.runtime.informer import Informer
from vnode.runtime.recorder import Recorder
from vnode.telemetry import log as logs
from vnode.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

ASK_LIMIT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Home:
    """What all sessions share of the home cluster. The informers hold metadata only and are run by `app`."""

    client: Client
    identity: Identity
    address: str
    namespaces: Informer
    reflected: Mapping[str, CoveringInformer]
    authority: ClientAuthority


class Session:
    """Runs one peer's virtual Node. Constructing opens nothing."""

    def __init__(
        self,
        spec: PeerSpec,
        home: Home,
        metrics: Metrics,
        works: Callable[[], None] = lambda: None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        """`works` is called once the stores are full and the controllers run."""
        self.spec = spec
        self._works = works
        identity, node = home.identity, spec.node_name
        self._home = home
        self._names = spec.namespace_map(identity.cluster)
        credentials = from_kubeconfig(spec.kubeconfig, spec.context, now)
        self._peer = peer = Client(credentials, spec.name, metrics)
        self._renewal = TokenRenewal(peer, credentials, in_file(spec.kubeconfig, spec.context), now)
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
        self._of_peer = self._filling[1:]

    @property
    def unready(self) -> list[str]:
        """What is not filled yet, for `/readyz`; empty when the session works."""
        problems = [self._node.problem] if self._node is not None and self._node.problem else []
        return problems + [
            f"{self.spec.name}: {informer.name} not synced" for informer in self._filling if not informer.is_synced
        ]

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
            last_alive = await last_renewed(self._home.client, self.spec.node_name)
            group.create_task(self._renewal.run(), name=f"{self.spec.name}/credential")
            node = self._node = await self._make_node(group)
            group.create_task(node.run(), name=f"{self.spec.name}/node")
            for informer in self._filling:
                group.create_task(informer.run(), name=f"{self.spec.name}/{informer.name}")
            # Decide only on full stores: a mirror not listed yet would be made twice.
            for informer in (*self._filling, self._home.namespaces, *self._home.reflected.values()):
                await informer.synced()
            await node.registered()
            self._pods.begin()
            group.create_task(self._reflector.run(), name=f"{self.spec.name}/reflect")
            group.create_task(self._pods.controller.run(), name=f"{self.spec.name}/pods")
            group.create_task(self._announcer.run(last_alive), name=f"{self.spec.name}/events-up")
            group.create_task(self._sweep(), name=f"{self.spec.name}/namespaces")
            node.on_peer_change(self._peer_changed)
            node.allow_ready()
            self._works()
            log.info("peer session works", extra={"pods": len(self._local.store), "mirrors": len(self._remote.store)})

    async def _make_node(self, group: asyncio.TaskGroup) -> NodeController:
        nodes = others = quotas = None
        if self._names.mapped_only:
            quotas = quotas_informer(self._peer, self._names.places)
        elif await self._may_list(NODES):
            nodes = nodes_informer(self._peer)
            if await self._may_list(PODS):
                others = others_informer(self._peer, self._home.identity.cluster_uid)
        self._of_peer = [*self._filling[1:], *filter(None, (nodes, others, quotas))]
        for informer in self._of_peer[len(self._filling) - 1 :]:
            group.create_task(informer.run(), name=f"{self.spec.name}/{informer.name}")
        return NodeController(
            home=self._home.client,
            peer=self._peer,
            spec=self.spec,
            identity=self._home.identity,
            address=self._home.address,
            port=lambda: self._port,
            nodes=nodes,
            others=others,
            quotas=quotas,
            metrics=self._metrics,
            recorder=self._recorder,
            now=self._now,
        )

    async def _may_list(self, resource: Resource) -> bool:
        """A peer that does not answer is taken to allow it; should it refuse later, the session starts anew."""
        try:
            async with asyncio.timeout(ASK_LIMIT_S):
                await self._peer.list_page(resource, "", {"limit": "1"})
        except Unauthorized:
            return True  # that is about the credential, which is being renewed
        except Rejected as error:
            log.warning("capacity is not known from the peer", extra={"resource": resource.plural, "error": str(error)})
            return False
        except (ApiError, TimeoutError):
            return True
        return True

    async def stop(self, reason: str) -> None:
        """Have the Node say that nobody serves it now."""
        if self._node is not None:
            await self._node.stop(reason)

    async def clear(self, say: Callable[[str], None]) -> None:
        """The Node being gone, wait until nothing of ours is left at the peer, then remove our namespaces there.

        What a DaemonSet's controller put back while the Node was going is deleted at home, and so ends at the peer.
        """
        told = -1
        while left := sum(len(informer.store) for informer in self._filling[1:]):
            if left != told:
                say(f"{self.spec.name}: {left} objects still go at the peer")
                told = left
            await asyncio.sleep(0.5)
            for local in list(self._local.store):
                if not local.leaving:
                    with suppress(NotFound, Conflict):
                        await self._home.client.delete(PODS, local.key, uid=local.uid)
            await self._reflector.remove_strays(self._remote.store)
        await self._namespaces.remove_all()

    def _peer_changed(self, verdict: Verdict) -> None:
        for informer in self._of_peer:
            if not verdict.up:
                informer.doubt()
            elif not informer.current:
                informer.refresh()
        if not verdict.up:
            return
        # What waits for its next try need not wait any longer.
        self._pods.controller.queue.hurry()
        self._reflector.controller.queue.hurry()

    async def _sweep(self) -> None:
        """Remove remote namespaces when their home namespace goes; at the start, those that went while we were away."""
        gone = asyncio.Event()
        gone.set()

        def changed(key: Key, before: Object | None, now: Object | None) -> None:
            if now is None:
                gone.set()
            elif before is None or before.meta.labels != now.meta.labels:
                self._pods.wake(key.name)

        unsubscribe = self._home.namespaces.on_change(changed)
        try:
            while True:
                await gone.wait()
                gone.clear()
                try:
                    await self._reflector.remove_strays(self._remote.store)
                    await self._namespaces.sweep()
                except ApiError as error:
                    log.info("namespaces not swept, will retry", extra={"error": str(error)})
                    await asyncio.sleep(30)
                    gone.set()
        finally:
            unsubscribe()

    def _offloads(self, namespace: str) -> bool:
        found = self._home.namespaces.store.get(Key("", namespace))
        return found is not None and self._names.offloads(namespace, found.meta.labels)

    def _locate(self, namespace: str, pod: str) -> Located | None:
        found = self._pods.locate(namespace, pod)
        if found is None:
            return None
        place, local = found
        if place is None:
            raise NotStarted
        return Located(self._peer, place, local.uid)

    def _bound(self) -> Iterable[Bound]:
        return (Bound(local, remote) for local, remote in self._pods.pairs())
