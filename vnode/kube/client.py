"""Requests to one apiserver: get, list, create, patch, apply, delete, and streams; failures as our own errors.

This is the byte seam: aiohttp's and the apiserver's errors are mapped to `vnode.errors` here and nowhere else.
Bodies come back as bytes, to be decoded once by who needs them. Retrying is the caller's affair.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode

import aiohttp
import msgspec
from yarl import URL

from vnode.errors import ApiError, Conflict, Gone, Idle, NotFound, Rejected, TooLong, Unauthorized, Unavailable
from vnode.kube.credentials import Connection, Credentials
from vnode.kube.objects import Json, JsonDict, Key
from vnode.kube.pool import Pool
from vnode.names import DOMAIN, FIELD_MANAGER, PEER_VERSION
from vnode.telemetry.metrics import Metrics

REQUEST_LIMIT_S: Final = 30.0
MAX_BODY: Final = 64 * 2**20  # one answer; a page of 500 Pods is about 7 MiB
MAX_ERROR_BODY: Final = 64 * 2**10

JSON: Final = "application/json"
MERGE_PATCH: Final = "application/merge-patch+json"
STRATEGIC_PATCH: Final = "application/strategic-merge-patch+json"
APPLY_PATCH: Final = "application/apply-patch+yaml"
METADATA_LIST: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
METADATA: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"


class Resource(NamedTuple):
    """A kind's place in the API: `prefix` is `/api/v1` or `/apis/GROUP/VERSION`."""

    prefix: str
    plural: str

    def path(self, key: Key | None = None, subresource: str = "") -> str:
        """The request path of the collection (no key), a namespace's collection (no name), or one object.

        Nothing in a key can leave its segment: names are quoted; `.` and `..`, which name nothing, are `NotFound`.
        """
        path = self.prefix
        if key is not None and key.namespace:
            path += f"/namespaces/{_segment(key.namespace)}"
        path += f"/{self.plural}"
        if key is not None and key.name:
            path += f"/{_segment(key.name)}"
        return f"{path}/{subresource}" if subresource else path


def _segment(name: str) -> str:
    if name in (".", ".."):
        raise NotFound(f"{name!r} is no name")
    return quote(name, safe="")


PODS: Final = Resource("/api/v1", "pods")
NODES: Final = Resource("/api/v1", "nodes")
NAMESPACES: Final = Resource("/api/v1", "namespaces")
CONFIG_MAPS: Final = Resource("/api/v1", "configmaps")
SECRETS: Final = Resource("/api/v1", "secrets")
EVENTS: Final = Resource("/api/v1", "events")
LEASES: Final = Resource("/apis/coordination.k8s.io/v1", "leases")
TOKEN_REVIEWS: Final = Resource("/apis/authentication.k8s.io/v1", "tokenreviews")
ACCESS_REVIEWS: Final = Resource("/apis/authorization.k8s.io/v1", "subjectaccessreviews")
SELF_ACCESS_REVIEWS: Final = Resource("/apis/authorization.k8s.io/v1", "selfsubjectaccessreviews")
PEERS: Final = Resource(f"/apis/{DOMAIN}/{PEER_VERSION}", "peers")
SIGNING_REQUESTS: Final = Resource("/apis/certificates.k8s.io/v1", "certificatesigningrequests")

Params = Mapping[str, str] | list[tuple[str, str]]


class Client:
    """One side's apiserver. `side` ("home" or the peer's name) labels its metrics.

    Opens nothing until the first request; `close` it at the end. Safe for any number of tasks.
    """

    def __init__(self, credentials: Credentials, side: str, metrics: Metrics) -> None:
        self._credentials = credentials
        self._pool = Pool()
        self._limits: set[asyncio.Timeout] = set()  # of the requests that wait for their answer
        self.side = side
        self._metrics = metrics

    async def close(self) -> None:
        """Close every connection. The client may be used again afterwards."""
        await self._pool.close()

    async def renew_connections(self) -> None:
        """Use those there are for nothing new: they seem to be dead. What is under way on them goes on."""
        await self._pool.retire()

    def break_off(self) -> None:
        """End every request that waits for its answer, as `Unavailable`: the server is back, but they may not know it.

        Streams go on.
        """
        now = asyncio.get_running_loop().time()
        for limit in self._limits:
            if not limit.expired():
                limit.reschedule(now)

    async def connection(self, instead_of: Connection | None = None) -> Connection:
        """The connection requests use now, for those who dial themselves; maybe for one that was not accepted."""
        if instead_of is not None:
            self._credentials.rejected(instead_of)
        return await self._credentials.current()

    async def get(self, resource: Resource, key: Key, *, subresource: str = "", params: Params = ()) -> bytes:  # type: ignore[assignment]
        """One object's bytes. Raises `NotFound`, and any `ApiError`, as every method here does."""
        return await self._request("get", "GET", resource, resource.path(key, subresource), params)

    async def list_page(self, resource: Resource, namespace: str, params: Params, accept: str = JSON) -> bytes:
        """One page of a list (`namespace` "" for all)."""
        return await self._request("list", "GET", resource, resource.path(Key(namespace, "")), params, accept=accept)

    async def create(
        self, resource: Resource, namespace: str, manifest: Json, *, name: str = "", subresource: str = ""
    ) -> bytes:
        """Create one object (or POST to a subresource of `name`). Raises `Conflict` when the name is taken."""
        path = resource.path(Key(namespace, name), subresource)
        return await self._request("create", "POST", resource, path, {"fieldManager": FIELD_MANAGER}, body=manifest)

    async def patch(self, resource: Resource, key: Key, patch: Any, kind: str, *, subresource: str = "") -> bytes:
        """Send a patch of content type `kind`. Put the uid into its metadata to have it as a precondition."""
        path = resource.path(key, subresource)
        params = {"fieldManager": FIELD_MANAGER}
        return await self._request("patch", "PATCH", resource, path, params, body=patch, content_type=kind)

    async def apply(self, resource: Resource, key: Key, manifest: Json, *, subresource: str = "") -> bytes:
        """Server-side apply under our field manager, taking over fields others hold."""
        path = resource.path(key, subresource)
        params = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return await self._request("apply", "PATCH", resource, path, params, body=manifest, content_type=APPLY_PATCH)

    async def replace(self, resource: Resource, key: Key, manifest: Json, *, subresource: str = "") -> bytes:
        """PUT; the resourceVersion in `manifest` is the precondition. Raises `Conflict` when it is old."""
        path = resource.path(key, subresource)
        return await self._request("update", "PUT", resource, path, {"fieldManager": FIELD_MANAGER}, body=manifest)

    async def delete(self, resource: Resource, key: Key, *, uid: str, grace_s: int | None = None) -> bytes:
        """Delete exactly the object with this uid; the answer is the object where it goes gracefully, else a Status.

        Raises `NotFound`, or `Conflict` when the name has a new owner.
        """
        options: JsonDict = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}}
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        return await self._request("delete", "DELETE", resource, resource.path(key), (), body=options)

    async def get_path(self, path: str, *, limit_s: float = REQUEST_LIMIT_S) -> bytes:
        """GET a path that is no resource (`/readyz`, `/version`)."""
        return await self._request("get", "GET", Resource("", path), path, (), limit_s=limit_s)

    @contextlib.asynccontextmanager
    async def stream(
        self,
        verb: str,
        resource: Resource,
        path: str,
        params: Params,
        *,
        accept: str = JSON,
        idle_s: float | None = None,
        head_s: float = REQUEST_LIMIT_S,
    ) -> AsyncIterator[aiohttp.StreamReader]:
        """GET a body without end (watch, log). The headers must come within `head_s`, data within `idle_s`.

        Raises `ApiError` for a refusal. A stream that breaks raises `Unavailable` from the block's reads, one that is
        silent for too long `Idle`.
        """
        connection = await self._credentials.current()
        code = 0
        try:
            async with self._pool.use() as generation:
                async with asyncio.timeout(head_s):
                    response = await generation.send("GET", connection, _url(connection, path, params), accept, idle_s)
                code = response.status
                self._count(verb, resource, code)
                try:
                    async with asyncio.timeout(REQUEST_LIMIT_S):  # a refusal's body comes soon or not at all
                        await self._raise_for(response, connection)
                    yield response.content
                finally:
                    response.close()  # not released: an unread body never goes back to the pool
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            if code == 0:
                self._count(verb, resource, code)
            raise self._unavailable(error, connection) from error

    async def _request(
        self,
        verb: str,
        method: str,
        resource: Resource,
        path: str,
        params: Params | tuple[()],
        *,
        body: Any = None,
        content_type: str = JSON,
        accept: str = JSON,
        limit_s: float = REQUEST_LIMIT_S,
    ) -> bytes:
        connection = await self._credentials.current()
        data = msgspec.json.encode(body) if body is not None else None
        code, limit = 0, asyncio.timeout(limit_s)
        async with self._pool.use() as generation:
            try:
                async with limit:
                    self._limits.add(limit)
                    try:
                        url = _url(connection, path, params)
                        response = await generation.send(method, connection, url, accept, limit_s, data, content_type)
                        async with response:
                            code = response.status
                            await self._raise_for(response, connection)
                            return await _read(response, MAX_BODY)
                    finally:
                        self._limits.discard(limit)
            except (TimeoutError, aiohttp.ClientError, OSError) as error:
                if isinstance(error, TimeoutError):
                    await self._pool.retire(generation)  # the next one is not to get the same dead connection
                raise self._unavailable(error, connection) from error
            finally:
                self._count(verb, resource, code)

    async def _raise_for(self, response: aiohttp.ClientResponse, connection: Connection) -> None:
        if response.status < 300:
            return
        if response.status == 401:
            self._credentials.rejected(connection)
        body = await _read(response, MAX_ERROR_BODY, cut=True)
        raise error_of(response.status, body, response.headers.get("Retry-After"))

    def _unavailable(self, error: BaseException, connection: Connection) -> ApiError:
        if isinstance(error, ApiError):
            return error
        if isinstance(error, ssl.SSLError | aiohttp.ClientConnectorSSLError):
            self._credentials.rejected(connection)  # a client certificate past its end looks like this
        kind = Idle if isinstance(error, aiohttp.SocketTimeoutError) else Unavailable
        said = str(error)
        if isinstance(error, aiohttp.ClientResponseError):  # as text it has the URL, a proxy's with its password
            said = f"{error.status} {error.message}"
        elif isinstance(error, aiohttp.InvalidURL):
            said = "its URL, or its proxy's, is none"
        return kind(f"{connection.server}: {said or type(error).__name__}")

    def _count(self, verb: str, resource: Resource, code: int) -> None:
        self._metrics.kube_requests.labels(self.side, verb, resource.plural, str(code)).inc()


def _url(connection: Connection, path: str, params: Params | tuple[()]) -> URL:
    query = f"?{urlencode(params if isinstance(params, list) else dict(params))}" if params else ""
    try:
        return URL(f"{connection.server}{path}{query}", encoded=True)
    except ValueError as error:
        raise OSError(str(error)) from error


async def _read(response: aiohttp.ClientResponse, limit: int, *, cut: bool = False) -> bytes:
    chunks, size = [], 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > limit and cut:
            break
        if size > limit:
            raise TooLong(f"the answer is longer than {limit} bytes", response.status)
        chunks.append(chunk)
    return b"".join(chunks)


class _Status(msgspec.Struct):
    message: str = ""
    reason: str = ""


_REJECTED: Final = frozenset({400, 403, 405, 406, 413, 415, 422})
_OTHERS: Final[Mapping[int, type[ApiError]]] = {401: Unauthorized, 404: NotFound, 409: Conflict, 410: Gone}


def error_of(code: int, body: bytes, retry_after: str | None = None) -> ApiError:
    """The error for an answer: by HTTP code, with the `metav1.Status` message where the body has one."""
    try:
        status = msgspec.json.decode(body, type=_Status)
    except (msgspec.DecodeError, UnicodeDecodeError):
        status = _Status()
    message = status.message or body[:4096].decode(errors="replace").strip() or f"HTTP {code}"
    if known := Rejected if code in _REJECTED else _OTHERS.get(code):
        return known(message, code, status.reason)
    after = float(retry_after) if retry_after and retry_after.isdecimal() else 0.0
    return Unavailable(message, code, status.reason, min(after, 60.0))
