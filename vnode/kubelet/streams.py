"""exec, attach and port-forward: the upgrade request goes on to the peer's apiserver, then the two are spliced.

SPDY/3.1 and WebSocket alike, neither understood here: sub-protocols, exit codes, terminal sizes and ports are between
kubectl and the peer. Query names are translated from the kubelet's to the apiserver's; refusals of the peer's kubelet
come back as they are but for the Pod's name, those of its apiserver in a kubelet's words. Called by `server`, which
owns the one `Streams` of a node.
"""

import asyncio
import http.client
import io
import ssl
from collections.abc import Iterable
from typing import Final
from urllib.parse import parse_qs, urlencode

from aiohttp import web
from yarl import URL

from vnode.errors import ApiError, Unauthorized, Unavailable
from vnode.kube.client import JSON, PODS, error_of
from vnode.kube.credentials import Connection
from vnode.kube.keepalive import keep_alive
from vnode.kube.objects import Key
from vnode.kubelet.request import Call, Locate, Refused, find, no_such_pod, not_running, unanswered
from vnode.kubelet.splice import Leg, splice
from vnode.names import USER_AGENT

MAX_SESSIONS: Final = 500  # about 0.2 MB each
ANSWER_LIMIT_S: Final = 40.0  # the peer's apiserver gives its kubelet 30
REFUSAL_LIMIT_S: Final = 10.0
MAX_REFUSAL: Final = 64 * 2**10

_SUBRESOURCES: Final = {"exec": "exec", "attach": "attach", "portForward": "portforward"}
_STREAMS: Final = {"input": "stdin", "output": "stdout", "error": "stderr", "tty": "tty"}
_PASSED_ON: Final = ("x-stream-protocol-version", "user-agent", "upgrade")
_TOKEN_PROTOCOL: Final = "base64url.bearer.authorization.k8s.io."  # noqa: S105 - the name, not a token


class Streams:
    """The open sessions of one node, at most `MAX_SESSIONS`."""

    def __init__(self) -> None:
        self._open = 0

    async def serve(self, request: web.BaseRequest, call: Call, locate: Locate) -> web.StreamResponse:
        """Answer as the peer does, and stay until the session is over. Raises `Refused`."""
        params = stream_params(call, request.rel_url.raw_query_string)
        located = find(locate, call)
        headers = passed_on(request.headers.items())
        if self._open >= MAX_SESSIONS:
            raise Refused(503, "too many open streams on this node")
        target = f"{PODS.path(located.key, _SUBRESOURCES[call.route])}?{urlencode(params)}"
        client = located.client
        self._open += 1
        try:
            connection = await client.connection()
            try:
                return await _serve(request, call, located.key, connection, target, headers)
            except Unauthorized:  # nothing was passed on yet
                connection = await client.connection(instead_of=connection)
                return await _serve(request, call, located.key, connection, target, headers)
        except ApiError as error:
            if error.code in (401, 403):
                raise Refused(500, f"peer {client.side} refuses vnode: {error.message}") from error
            raise unanswered(client.side, error) from error
        finally:
            self._open -= 1


def stream_params(call: Call, query: str) -> list[tuple[str, str]]:
    """The peer's query parameters for a kubelet's. Raises `Refused` (400) as the kubelet does.

    `input=1 output=1 error=1 tty=1 command=…` of exec and attach (k8s.io/cri-streaming v0.37 remotecommand,
    NewOptions), `port=80,81` of a legacy WebSocket's port-forward (portforward, NewV4Options).
    """
    given = parse_qs(query, keep_blank_values=True)
    if call.route == "portForward":
        return [("ports", _port(port, value)) for value in given.get("port", ()) for port in value.split(",")]
    wanted = [(name, "true") for ours, name in _STREAMS.items() if given.get(ours, [""])[0] == "1"]
    if ("tty", "true") in wanted and ("stderr", "true") in wanted:
        wanted.remove(("stderr", "true"))  # a terminal has one output
    if not {name for name, _ in wanted} & {"stdin", "stdout", "stderr"}:
        raise Refused(400, "you must specify at least 1 of stdin, stdout, stderr")
    commands = [("command", command) for command in given.get("command", ())] if call.route == "exec" else []
    return [("container", call.container), *wanted, *commands]


def _port(port: str, value: str) -> str:
    digits = port.lstrip("0")  # int() takes no more than 4300, zeros included
    if not (port.isascii() and port.isdecimal() and len(digits) <= 5 and int(digits or "0") < 65536):
        raise Refused(400, f'unable to parse "{value[:64]}" as a port')
    if not digits:
        raise Refused(400, f'port "{value[:64]}" must be > 0')
    return digits


def passed_on(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The headers that go on to the peer: the upgrade and its sub-protocols, and nothing that says who asks.

    Raises `Refused` for what is no upgrade, with the code that a kubelet's proxy gives it.
    """
    kept = []
    for name, value in headers:
        if name.lower() == "sec-websocket-protocol":
            offers = [offer.strip() for offer in value.split(",")]
            value = ", ".join(offer for offer in offers if not offer.startswith(_TOKEN_PROTOCOL))
        if name.lower() in _PASSED_ON or name.lower().startswith("sec-websocket-"):
            kept.append((name, value))
    if {value.lower() for name, value in kept if name.lower() == "upgrade"} not in ({"spdy/3.1"}, {"websocket"}):
        raise Refused(500, "Upgrade request required\n")
    if not any(name.lower() == "user-agent" for name, _ in kept):
        kept.append(("User-Agent", USER_AGENT))
    return [("Connection", "Upgrade"), *kept]


def request_head(method: str, target: URL, headers: Iterable[tuple[str, str]]) -> bytes:
    """The bytes of a request without a body."""
    lines = [f"{method} {target.raw_path_qs} HTTP/1.1", f"Host: {target.raw_authority}"]
    lines += [f"{name}: {value}" for name, value in headers]
    if method == "POST":
        lines.append("Content-Length: 0")
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape")


def parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    """Status and fields (names in lower case) of an answer's head. Raises ValueError."""
    line, _, rest = head.partition(b"\r\n")
    version, status, *_ = [*line.decode("latin-1").split(" ", 2), ""]
    if not version.startswith("HTTP/1.") or not (len(status) == 3 and status.isdecimal()):
        raise ValueError("the answer is not HTTP/1.1")
    try:
        fields = http.client.parse_headers(io.BytesIO(rest))
    except http.client.HTTPException as error:
        raise ValueError(f"the answer's head cannot be read: {error}") from error
    return int(status), {name.lower(): value for name, value in fields.items()}


async def _serve(
    request: web.BaseRequest,
    call: Call,
    remote: Key,
    connection: Connection,
    target: str,
    headers: list[tuple[str, str]],
) -> web.StreamResponse:
    """Answer as the peer does, which is asked by `connection`. Raises `ApiError` while nothing is passed on yet."""
    peer = Leg()
    try:
        try:
            url = URL(f"{connection.server}{target}", encoded=True)
            head = request_head(request.method, url, [*headers, *connection.headers.items()])
            answer = await _ask(peer, connection, url, head)
            status, fields = parse_head(answer)
        except ssl.SSLError as error:  # a client certificate past its end looks like this
            raise Unauthorized(str(error)) from error
        except (OSError, TimeoutError, ValueError) as error:
            raise Unavailable(str(error)) from error
        if status == 101:
            return await _switch(request, peer, answer)
        body, content_type = await _refusal(peer, fields), fields.get("content-type", "text/plain")
        by_apiserver = content_type.partition(";")[0] == JSON  # a kubelet refuses in plain text
        if status == 401 or (status == 403 and by_apiserver):
            raise error_of(status, body)
        if status < 400:
            raise Refused(500, f"the peer gave no upgrade but status {status}")
        if by_apiserver:
            raise apiserver_refusal(status, body, call)
        # The peer's kubelet knows the Pod by its full name there.
        body = body.replace(f"{remote.name}_{remote.namespace}".encode(), f"{call.pod}_{call.namespace}".encode())
        response = web.Response(status=status, body=body, headers={"Content-Type": content_type})
        response.force_close()
        return response
    finally:
        peer.abort()


async def _ask(peer: Leg, connection: Connection, url: URL, head: bytes) -> bytes:
    """Dial, send the request, and return the head of the answer."""
    if connection.proxy:
        raise OSError("its proxy does not carry streams")
    assert url.host is not None
    assert url.port is not None
    name = (connection.server_name or url.host) if connection.tls is not None else None
    async with asyncio.timeout(ANSWER_LIMIT_S):
        transport, _ = await asyncio.get_running_loop().create_connection(
            lambda: peer, url.host, url.port, ssl=connection.tls, server_hostname=name
        )
        keep_alive(transport.get_extra_info("socket"))
        peer.write(head)
        return await peer.head


def apiserver_refusal(status: int, body: bytes, call: Call) -> Refused:
    """What a kubelet says where the peer's apiserver refuses by itself: its Status knows the Pod by another name."""
    if status == 404:
        return no_such_pod(call)
    if status == 400:  # the Pod has no such container, or no node
        return not_running(call)
    return Refused(status, error_of(status, body).message)


async def _refusal(peer: Leg, fields: dict[str, str]) -> bytes:
    """The body behind a refusal's head: up to its length or the end."""
    told = fields.get("content-length", "")
    length = int(told) if told.isdecimal() and len(told) < 10 else MAX_REFUSAL  # else there are more than we read
    assert peer.transport is not None
    peer.transport.resume_reading()
    try:
        async with asyncio.timeout(REFUSAL_LIMIT_S):
            while len(peer.rest) < min(length, MAX_REFUSAL) and not peer.lost.is_set():
                await peer.more()
    except TimeoutError:
        pass  # what came must do
    return peer.rest[: min(length, MAX_REFUSAL)]


class _Switched(web.StreamResponse):
    """The 101 that was sent by hand: aiohttp has nothing more to write."""

    def __init__(self) -> None:
        super().__init__(status=101)
        self.force_close()

    async def prepare(self, request: web.BaseRequest) -> None:
        """Nothing."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing."""


async def _switch(request: web.BaseRequest, peer: Leg, answer: bytes) -> web.StreamResponse:
    """Take the connection away from aiohttp and splice it to the peer's."""
    handler, transport = request.protocol, request.transport
    if transport is None or transport.is_closing():
        raise ConnectionError("the asker is gone")
    user = Leg()
    user.head.cancel()
    user.connection_made(transport)
    # Before the 101 is out, or aiohttp would take for a request what comes in answer to it.
    transport.set_protocol(user)
    try:
        # Of a WebSocket, early bytes wait here; private, hence aiohttp's bound in pyproject.
        user.rest = bytes(handler._message_tail)  # noqa: SLF001
        user.write(answer)
        await splice(user, peer)
    finally:
        user.abort()
        # aiohttp's own end of the connection hears of it only from us.
        handler.connection_lost(None)
    return _Switched()
