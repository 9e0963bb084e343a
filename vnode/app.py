"""The composition root: every long-lived object of the process is made here, and one kept session a peer is run.

`cli` calls it. Between peers no loss spreads: each session runs under `keep`.
"""

import asyncio
import contextlib
import gc
import logging
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from vnode.config import PeerSpec, Settings, default_cluster_name
from vnode.errors import ApiError, VnodeError
from vnode.kube.access import allowed
from vnode.kube.client import NAMESPACES, Client, Resource
from vnode.kube.credentials import Credentials
from vnode.kube.objects import Key, Object, parse_object, utc_now
from vnode.kube.watch import Backoff, Source
from vnode.kubelet.authority import ClientAuthority
from vnode.node.manifest import Identity
from vnode.node.removal import drain_and_remove
from vnode.peers.session import Home, Session
from vnode.reflect.kinds import KINDS
from vnode.rules import validate
from vnode.runtime.controller import keep
from vnode.runtime.covering import CoveringInformer
from vnode.runtime.informer import Informer
from vnode.telemetry.metrics import AdminServer, Metrics, watch_loop_lag

log = logging.getLogger(__name__)

STOP_LIMIT_S: Final = 5.0


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
        self._now = now
        self.metrics = Metrics()
        self.client = Client(credentials, "home", self.metrics)
        self._namespaces = Informer("home-namespaces", Source(self.client, NAMESPACES, metadata_only=True))
        self._reflected = {kind: self._copied(resource) for kind, resource in KINDS.items()}
        self._namespaces.on_change(self._namespace_changed)
        self._authority = ClientAuthority(self.client, settings.kubelet.client_ca)
        self._admin = AdminServer(self.metrics, admin_address, admin_port, self._unready)
        self.sessions: dict[str, Session] = {}
        self._working = {spec.name: asyncio.Event() for spec in settings.peers}

    async def run(self, stop: asyncio.Event) -> None:
        """Serve every peer until `stop` is set; then mark the Nodes, and leave them and the mirrors there."""
        async with self._running():
            await stop.wait()
            log.info("stopping")
            await self._stop_sessions()

    async def run_and_remove(self, stop: asyncio.Event, say: Callable[[str], None], limit_s: float) -> None:
        """Serve every peer until `stop` is set; then drain and remove the Nodes and what is ours at the peers.

        A peer that is away keeps no other Node from going. Raises `VnodeError`, a line for each Node that could not be
        removed within `limit_s` seconds.
        """
        async with self._running():
            await stop.wait()
            async with asyncio.TaskGroup() as group:
                removals = [
                    group.create_task(self._remove(spec, say, limit_s), name=f"{spec.name}/remove")
                    for spec in self._settings.peers
                ]
            if problems := [problem for removal in removals if (problem := removal.result())]:
                raise VnodeError("\n".join(problems))

    async def _remove(self, spec: PeerSpec, say: Callable[[str], None], limit_s: float) -> str:
        """Remove one Node, with `limit_s` for each step; why it did not succeed, "" when it did."""
        problem = f"peer {spec.name} did not answer; if it is gone for good, deploy/README.md says what to do"
        try:
            async with asyncio.timeout(limit_s):
                await self._working[spec.name].wait()
                identity = (await self._home()).identity
            await drain_and_remove(self.client, spec.node_name, identity, say, limit_s)
            problem = "what is ours at the peer did not go; run it again"
            async with asyncio.timeout(limit_s):
                await self.sessions[spec.name].clear(say)
        except VnodeError as error:
            return f"{spec.node_name}: {error}"
        except TimeoutError:
            return f"{spec.node_name}: after {limit_s:.0f} s {problem}"
        return ""

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
            for spec in self._settings.peers:
                group.create_task(keep(spec.name, self._starter(spec, home), self.metrics), name=spec.name)
            group.create_task(self._freeze(), name="freeze")

    def _starter(self, spec: PeerSpec, home: Home) -> Callable[[], Coroutine[Any, Any, None]]:
        async def start() -> None:
            session = Session(spec, home, self.metrics, lambda: self._works(spec.name), self._now)
            self.sessions[spec.name] = session
            try:
                await session.run()
            finally:
                self._working[spec.name].clear()
                gc.unfreeze()  # what `_freeze` took away may be this session's by now: let it be collected

        return start

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

    async def _stop_sessions(self) -> None:
        """Mark every Node as stopped, all at once and within a limit: an apiserver that is away must not hold us."""

        async def stop(session: Session) -> None:
            try:
                async with asyncio.timeout(STOP_LIMIT_S):
                    await session.stop("vnode was stopped")
            except (VnodeError, TimeoutError) as error:
                log.warning("node not marked as stopped", extra={"peer": session.spec.name, "error": str(error)})

        async with asyncio.TaskGroup() as group:
            for session in self.sessions.values():
                group.create_task(stop(session), name=f"{session.spec.name}/stop")

    async def _freeze(self) -> None:
        """Once everything is synced take what lives for ever out of the garbage collector's sight."""
        for working in self._working.values():
            await working.wait()
        gc.collect()
        gc.freeze()

    def _copied(self, resource: Resource) -> CoveringInformer:
        async def everywhere() -> bool:
            return await allowed(self.client, "list", resource.plural) and await allowed(
                self.client, "watch", resource.plural
            )

        source = Source(self.client, resource, metadata_only=True)
        return CoveringInformer(f"home-{resource.plural}", source, everywhere)

    def _namespace_changed(self, key: Key, _: Object | None, now: Object | None) -> None:
        if now is None:
            for informer in self._reflected.values():
                informer.uncover(key.name)

    def _works(self, peer: str) -> None:
        self._working[peer].set()

    def _unready(self) -> list[str]:
        shared = (self._namespaces, *self._reflected.values())
        waiting = [f"home: {informer.name} not synced" for informer in shared if not informer.is_synced]
        for spec in self._settings.peers:
            session = self.sessions.get(spec.name)
            waiting += session.unready if session else [f"{spec.name}: not started"]
        return waiting

    async def _serve_admin(self) -> None:
        try:
            await self._admin.run(self._tell_admin)
        except OSError as error:
            raise VnodeError(f"admin port {self._admin.port}: {error.strerror or error}; see --admin-port") from error

    def _tell_admin(self) -> None:
        log.info("admin port open", extra={"port": self._admin.port})
