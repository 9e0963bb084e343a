"""The composition root: what all peers share is made here, and the fleet of their sessions is told what to serve.

`cli` calls it. The peers are those of the settings, for good, or whatever Peer objects there are.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from vnode.config import Settings, default_cluster_name
from vnode.errors import ApiError, VnodeError
from vnode.kube.access import allowed
from vnode.kube.client import NAMESPACES, Client, Resource
from vnode.kube.credentials import Credentials, from_kubeconfig
from vnode.kube.objects import Key, Object, parse_object, utc_now
from vnode.kube.watch import Backoff, Source
from vnode.kubelet.authority import ClientAuthority
from vnode.node.manifest import Identity
from vnode.peers.fleet import Fleet, Wanted
from vnode.peers.home import Home
from vnode.peers.renewal import in_file
from vnode.reflect.kinds import KINDS
from vnode.rules import validate
from vnode.runtime.covering import CoveringInformer
from vnode.runtime.informer import Informer
from vnode.telemetry.metrics import AdminServer, Metrics, watch_loop_lag

if TYPE_CHECKING:
    from vnode.peers.controller import PeerController

log = logging.getLogger(__name__)


class App:
    """One vnode process. Constructing opens nothing; `run` does the work until `stop` is set."""

    def __init__(
        self,
        settings: Settings,
        credentials: Credentials,
        *,
        admin_address: str = "127.0.0.1",
        admin_port: int = 0,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._settings = settings
        self._credentials = credentials
        self._now = now
        self.metrics = Metrics()
        self.client = Client(credentials, "home", self.metrics)
        self._namespaces = Informer("home-namespaces", Source(self.client, NAMESPACES, metadata_only=True))
        self._reflected = {kind: self._copied(resource) for kind, resource in KINDS.items()}
        self._namespaces.on_change(self._namespace_changed)
        self._authority = ClientAuthority(self.client, settings.kubelet.client_ca)
        self._admin = AdminServer(self.metrics, admin_address, admin_port, self._unready)
        self._fleet = Fleet(self.metrics, now)
        self._fleet.follow(
            {
                spec.name: Wanted(
                    spec,
                    from_kubeconfig(spec.kubeconfig, spec.context, now),
                    in_file(spec.kubeconfig, spec.context),
                )
                for spec in settings.peers
            }
        )
        self._objects: PeerController | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Serve every peer until `stop` is set; then mark the Nodes, and leave them and the mirrors there."""
        async with self._running():
            await stop.wait()
            log.info("stopping")
            await self._fleet.stop()

    async def run_and_remove(self, stop: asyncio.Event, say: Callable[[str], None], limit_s: float) -> None:
        """Serve every peer until `stop` is set; then drain and remove the Nodes and what is ours at the peers.

        A peer that is away keeps no other Node from going. Raises `VnodeError`, a line for each Node that could not be
        removed within `limit_s` seconds.
        """
        async with self._running():
            await stop.wait()
            async with asyncio.TaskGroup() as group:
                removals = [
                    group.create_task(self._fleet.remove(peer, say, limit_s), name=f"{peer}/remove")
                    for peer in self._fleet.names
                ]
            if problems := [problem for removal in removals if (problem := removal.result())]:
                raise VnodeError("\n".join(problems))

    @contextlib.asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        """Everything runs while the block does; what ends it ends the block, and the other way round."""
        try:
            async with asyncio.TaskGroup() as group:
                main = group.create_task(self._main(), name="main")
                yield
                main.cancel()
        finally:
            await self.client.close()

    async def _main(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._serve_admin(), name="admin")
            group.create_task(watch_loop_lag(self.metrics), name="loop-lag")
            home = await self._home()
            group.create_task(self._authority.run(), name="client-ca")
            for informer in (self._namespaces, *self._reflected.values()):
                group.create_task(informer.run(), name=informer.name)
            group.create_task(self._fleet.run(home), name="fleet")
            if self._settings.objects_in:
                group.create_task(self._follow_objects(home), name="peer-objects")

    async def _follow_objects(self, home: Home) -> None:
        from vnode.peers.controller import PeerController  # brings kopf in: only where Peers are objects

        self._objects = PeerController(
            home, self._credentials, self._fleet, self._settings.objects_in, self.metrics, self._now
        )
        await self._objects.run()

    async def _home(self) -> Home:
        """Learn who and where home is; waits for it as long as it takes."""
        backoff = Backoff(base_s=0.5, cap_s=15.0)
        while True:
            try:
                uid = parse_object(await self.client.get(NAMESPACES, Key("", "kube-system"))).uid
                address = self._settings.kubelet.address or await self._local_address()
            except (ApiError, OSError) as error:
                log.warning("home cluster does not answer", extra={"error": str(error)})
                await asyncio.sleep(backoff.next())
            else:
                identity = Identity(self._settings.cluster or default_cluster_name(uid), uid)
                validate(msgspec.structs.replace(self._settings, cluster=identity.cluster))
                log.info("home cluster found", extra={"cluster": identity.cluster, "address": address})
                return Home(self.client, identity, address, self._namespaces, self._reflected, self._authority)

    async def _local_address(self) -> str:
        """Our address on the way to home's apiserver: where that one will reach us, if nothing is in between."""
        server = urlsplit((await self.client.connection()).server)
        port = server.port or (443 if server.scheme == "https" else 80)
        found = await asyncio.get_running_loop().getaddrinfo(server.hostname, port, type=socket.SOCK_DGRAM)
        family, kind, _, _, address = found[0]
        with socket.socket(family, kind) as probe:
            probe.connect(address)  # a datagram socket: nothing is sent
            return str(probe.getsockname()[0])

    def _copied(self, resource: Resource) -> CoveringInformer:
        async def everywhere() -> bool:
            return await allowed(self.client, "list", resource.plural) and await allowed(
                self.client, "watch", resource.plural
            )

        source = Source(self.client, resource, metadata_only=True)
        return CoveringInformer(
            f"home-{resource.plural}",
            source,
            everywhere,
            lambda name: self._namespaces.store.get(Key("", name)) is not None,
        )

    def _namespace_changed(self, key: Key, _: Object | None, now: Object | None) -> None:
        if now is None:
            for informer in self._reflected.values():
                informer.uncover(key.name)

    def _unready(self) -> list[str]:
        shared = (self._namespaces, *self._reflected.values())
        waiting = [f"home: {informer.name} not synced" for informer in shared if not informer.is_synced]
        if not self._settings.objects_in:
            return waiting + self._fleet.unready
        # A peer that does not work says so in its own status; it keeps no rollout of ours from going on.
        return waiting if self._objects is not None and self._objects.listed else [*waiting, "peers: not listed"]

    async def _serve_admin(self) -> None:
        try:
            await self._admin.run(self._tell_admin)
        except OSError as error:
            raise VnodeError(f"admin port {self._admin.port}: {error.strerror or error}; see --admin-port") from error

    def _tell_admin(self) -> None:
        log.info("admin port open", extra={"port": self._admin.port})
