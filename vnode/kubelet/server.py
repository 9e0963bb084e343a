"""The TLS port of one virtual node: what the home apiserver dials for logs, exec, attach and port-forward.

Every request, whatever its path, passes the door (`auth`) first and is only then looked at (`request.parse`).
One `KubeletServer` per node, run by its peer's session. The socket is opened once; a new serving certificate or a new
client CA makes a new TLS context on it, so new handshakes see the new one while running streams go on.
"""

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Final
from weakref import WeakSet

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from vnode.errors import VnodeError
from vnode.kube.keepalive import keep_alive
from vnode.kube.tls import load_chain
from vnode.kubelet.auth import Door
from vnode.kubelet.certificate import Chain, ServingCertificate
from vnode.kubelet.current import Current
from vnode.kubelet.logs import serve_logs
from vnode.kubelet.reports import Reports
from vnode.kubelet.request import REPORTS, Locate, Refused, label, parse
from vnode.kubelet.splice import cut
from vnode.kubelet.streams import Streams
from vnode.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 1024  # about 0.1 MB each; those in their handshake count
MAX_LINE: Final = 64 * 2**10  # a command to exec stands in the request line
MAX_HEADER: Final = 16 * 2**10
MAX_HEADERS: Final = 64
HANDSHAKE_LIMIT_S: Final = 10.0
ACCEPT_AGAIN_S: Final = 1.0  # when there is no descriptor for a connection
DOOR_LIMIT_S: Final = 30.0
IDLE_LIMIT_S: Final = 60.0  # also how long a request's head may take
CLOSE_LIMIT_S: Final = 0.5
BACKLOG: Final = 128
GONE: Final = 499  # in metrics: the asker left before there was an answer

# All forward-secret with authenticated encryption; TLS 1.3 brings its own.
CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"


class KubeletServer:
    """One node's kubelet port. Constructing opens nothing.

    `address` is an IP to listen on, `port` 0 takes a free one. `locate` finds the Pods of this node, and of no other;
    `reports` answers what is about all of them.
    """

    def __init__(
        self,
        *,
        node: str,
        address: str,
        port: int,
        door: Door,
        locate: Locate,
        reports: Reports,
        certificate: ServingCertificate,
        metrics: Metrics,
    ) -> None:
        self._node = node
        self._address = address
        self._port = port
        self._door = door
        self._locate = locate
        self._reports = reports
        self._certificate = certificate
        self._metrics = metrics
        self._streams = Streams()
        self._trusted: WeakSet[ssl.SSLContext] = WeakSet()  # those that know the CA of today
        self._busy: set[web.RequestHandler] = set()
        self._shaking: set[socket.socket] = set()  # no protocol is told of a connection before its handshake is over

    async def run(self, started: Callable[[int], None]) -> None:
        """Serve until cancelled, then end every session within a second. `started` gets the port once it is open.

        Raises `VnodeError` when the port cannot be had.
        """
        try:
            listener = listening_socket(self._address, self._port)
        except OSError as error:
            hint = "; kubelet.address must be an address of this machine" if error.errno == errno.EADDRNOTAVAIL else ""
            raise VnodeError(f"kubelet port cannot be opened: {error.strerror or error}{hint}") from error
        with listener:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._certificate.run(), name=f"kubelet-certificate-{self._node}")
                started(listener.getsockname()[1])  # who connects now waits in the backlog for a moment
                await self._serve(listener)

    async def _serve(self, listener: socket.socket) -> None:
        server = web.Server(
            self._answer,
            handler_cancellation=True,
            access_log=None,
            logger=_wire_log,
            keepalive_timeout=IDLE_LIMIT_S,
            lingering_time=1.0,
            max_line_size=MAX_LINE,
            max_field_size=MAX_HEADER,
            max_headers=MAX_HEADERS,
            auto_decompress=False,
        )
        changed = asyncio.Event()
        chain, authority = self._certificate.current, self._door.authority.current
        with chain.telling(changed), authority.telling(changed):
            trusted = authority.value
            context = Current(self._context(chain.value, trusted))
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._accept(server, listener, context, group), name=f"accept-{self._node}")
                    while True:
                        await changed.wait()
                        changed.clear()
                        if authority.value != trusted:
                            trusted = authority.value
                            self._renew_connections(server)
                        context.value = self._context(chain.value, trusted)
            finally:
                for connection in self._shaking:
                    connection.close()  # of those that had not begun
                await _end(server)

    def _context(self, chain: Chain, client_ca: str) -> ssl.SSLContext:
        try:
            context = server_context(chain, client_ca)
        except OSError as error:  # ssl's errors are such; or there is no descriptor for the key's file
            raise VnodeError(f"certificates of the kubelet port cannot be used: {error}") from error
        self._trusted.add(context)
        return context

    async def _accept(
        self, server: web.Server, listener: socket.socket, context: Current[ssl.SSLContext], group: asyncio.TaskGroup
    ) -> None:
        """Take connections, up to the limit, and begin their handshakes, which asyncio's own server would not count."""
        loop, full = asyncio.get_running_loop(), False
        listener.setblocking(False)
        while True:
            await asyncio.sleep(0)  # a full backlog must not keep the handshakes from their turn
            try:
                connection, _ = await loop.sock_accept(listener)
            except ConnectionAbortedError:
                continue  # it is gone already
            except OSError as error:
                log.warning("kubelet port cannot accept, will retry", extra={"error": str(error)})
                await asyncio.sleep(ACCEPT_AGAIN_S)
                continue
            was_full, full = full, len(self._shaking) + len(server.connections) >= MAX_CONNECTIONS
            if full:
                connection.close()
                if not was_full:
                    log.warning("kubelet port is full, new connections are closed", extra={"limit": MAX_CONNECTIONS})
                continue
            self._shaking.add(connection)
            group.create_task(self._shake(server, connection, context.value), name=f"handshake-{self._node}")

    async def _shake(self, server: web.Server, connection: socket.socket, context: ssl.SSLContext) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                server, connection, ssl=context, ssl_handshake_timeout=HANDSHAKE_LIMIT_S
            )
        except OSError as error:  # ssl's errors are such; anybody can cause them
            log.debug("handshake failed", extra={"error": str(error)})
        finally:
            self._shaking.discard(connection)

    def _renew_connections(self, server: web.Server) -> None:
        """Whoever came by a certificate of the old CA has to come again; running streams end first."""
        self._trusted.clear()
        for connection in server.connections:
            connection.close()  # after the request at hand
            if connection not in self._busy:
                connection.force_close()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.raw_path.partition("?")[0]
        code = 500
        self._busy.add(request.protocol)
        try:
            try:
                response = await self._admit(request, path)
            except Refused as refused:
                response = _plain(refused)
            code = response.status
            return response
        except (asyncio.CancelledError, ConnectionError):
            code = GONE
            raise
        finally:
            self._busy.discard(request.protocol)
            self._metrics.kubelet_requests.labels(self._node, label(path), str(code)).inc()

    async def _admit(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        tls = request.transport.get_extra_info("ssl_object") if request.transport is not None else None
        if tls is not None and tls.context not in self._trusted:
            tls = None  # its handshake crossed a change of the CA
        try:
            async with asyncio.timeout(DOOR_LIMIT_S):
                await self._door.enter(tls, request.headers.get("Authorization", ""), request.method, path)
        except TimeoutError:
            raise Refused(503, "authentication is not available") from None
        call = parse(request.method, path)
        match call.route:
            case report if report in REPORTS:
                return await self._reports.serve(request, report)
            case "containerLogs":
                return await serve_logs(request, call, self._locate)
            case _:
                return await self._streams.serve(request, call, self._locate)


def listening_socket(address: str, port: int) -> socket.socket:
    """A socket that listens; what it accepts has TCP keepalive, so that dead peers are found within two minutes."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.create_server((address, port), family=family, backlog=BACKLOG)
    keep_alive(listener)
    return listener


def server_context(chain: Chain, client_ca: str) -> ssl.SSLContext:
    """TLS as a kubelet's. With a CA, a client certificate is asked for, and one it did not sign ends the handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    # No resumption: a resumed session would not look at its client certificate again.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.num_tickets = 0
    if client_ca:
        context.verify_mode = ssl.CERT_OPTIONAL
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # as Go: what is in the bundle is trusted, root or not
        context.load_verify_locations(cadata=client_ca)
    load_chain(context, chain.certificate, chain.key)
    return context


async def _end(server: web.Server) -> None:
    transports = [connection.transport for connection in server.connections]
    server.pre_shutdown()
    await server.shutdown(CLOSE_LIMIT_S)
    for transport in transports:
        if transport is not None:
            cut(transport)
    await asyncio.sleep(0)


def _plain(refused: Refused) -> web.Response:
    # Text, not JSON: the apiserver wraps the body into a Status of its own.
    headers = {"X-Content-Type-Options": "nosniff"} | ({"Allow": refused.allow} if refused.allow else {})
    return web.Response(status=refused.code, text=refused.text, headers=headers)


class _OursOnly(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        # aiohttp logs a traceback for each malformed request; anybody can send those.
        return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


_wire_log = logging.getLogger(f"{__name__}.wire")
_wire_log.addFilter(_OursOnly())
