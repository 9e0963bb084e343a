"""The door of a kubelet port: who asks (client certificate or bearer token), and may they (SubjectAccessReview).

The kubelet's rules (k8s.io/kubernetes v1.37 pkg/kubelet/server/auth.go and server.go, InstallAuthFilter) and its
cache times, stricter in two points: exec, attach and portForward need `create` whatever the method (upstream,
`get nodes/proxy` is enough to run commands by WebSocket), and nobody is anonymous. When home's apiserver gives
no verdict the request fails; it is never let in. Called by `server` before anything else looks at a request.
"""

import asyncio
import hashlib
import hmac
import logging
import secrets
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Generic, NamedTuple, TypeVar

import msgspec
from cachetools import TLRUCache
from cryptography import x509
from cryptography.x509.oid import NameOID

from vnode.errors import ApiError
from vnode.kube.client import ACCESS_REVIEWS, TOKEN_REVIEWS, Client
from vnode.kube.objects import utc_now
from vnode.kubelet.authority import ClientAuthority
from vnode.kubelet.request import STREAMS, Refused

log = logging.getLogger(__name__)

# k8s.io/kubernetes v1.37 pkg/kubelet/apis/config/v1beta1/defaults.go: authentication.webhook.cacheTTL, for a token
# that is none as well, and authorization.webhook.cacheAuthorizedTTL and cacheUnauthorizedTTL.
TOKEN_LIFE_S: Final = 120.0
ALLOW_LIFE_S: Final = 300.0
DENY_LIFE_S: Final = 30.0
REVIEW_LIMIT_S: Final = 10.0
MAX_ENTRIES: Final = 4096
AUTHENTICATED: Final = "system:authenticated"

_VERBS: Final = {"POST": "create", "GET": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_SUBRESOURCES: Final = {
    "stats": ("stats",),
    "metrics": ("metrics",),
    "logs": ("log",),
    "checkpoint": ("checkpoint",),
    "statusz": ("statusz",),
    "flagz": ("configz",),
    "allocatedPods": ("pods", "proxy"),
    "pods": ("pods", "proxy"),
    "runningpods": ("pods", "proxy"),
    "healthz": ("healthz", "proxy"),
    "configz": ("configz", "proxy"),
}


class Attributes(NamedTuple):
    """What must be allowed on `nodes/NODE`: the verb and the subresource."""

    verb: str
    subresource: str


def attributes(method: str, path: str) -> list[Attributes]:
    """The attribute sets of a request, any of which suffices; never empty. An unknown method's verb is ""."""
    route = path[1:].partition("/")[0] if path.startswith("/") else ""
    verb = "create" if route in STREAMS else _VERBS.get(method, "")
    return [Attributes(verb, subresource) for subresource in _SUBRESOURCES.get(route, ("proxy",))]


class User(msgspec.Struct, frozen=True):
    """Who asks, as `authentication.k8s.io/v1` UserInfo."""

    username: str = ""
    uid: str = ""
    groups: list[str] = []
    extra: dict[str, list[str]] = {}


class _TokenStatus(msgspec.Struct):
    authenticated: bool = False
    user: User = User()
    error: str = ""


class _TokenReview(msgspec.Struct):
    status: _TokenStatus


class _AccessStatus(msgspec.Struct):
    allowed: bool = False
    denied: bool = False


class _AccessReview(msgspec.Struct):
    status: _AccessStatus


V = TypeVar("V")


class Verdicts(Generic[V]):
    """Answers kept for their time and asked for once, however many wait. Failures are not kept."""

    def __init__(self, life_s: Callable[[V], float]) -> None:
        self._kept: TLRUCache[bytes, V] = TLRUCache(
            MAX_ENTRIES,
            lambda _key, value, now: now + life_s(value),
            timer=lambda: asyncio.get_running_loop().time(),
        )
        self._asked: dict[bytes, asyncio.Event] = {}

    async def get(self, key: bytes, ask: Callable[[], Awaitable[V]]) -> V:
        """The kept answer, or that of `ask`. When the one who asks fails or leaves, the next waiter asks."""
        while (asked := self._asked.get(key)) is not None:
            await asked.wait()
        kept = self._kept.get(key)
        if kept is not None:
            return kept
        asked = self._asked[key] = asyncio.Event()
        try:
            answer = self._kept[key] = await ask()
            return answer
        finally:
            del self._asked[key]
            asked.set()


@dataclass(frozen=True, slots=True)
class _Known:
    user: User | None


@dataclass(slots=True)
class Door:
    """Lets requests to one node's port in, or raises `Refused`. Verdicts live in memory, keyed by hashes only."""

    home: Client
    node: str
    authority: ClientAuthority
    now: Callable[[], datetime] = utc_now
    _tokens: Verdicts[_Known] = field(init=False, repr=False)
    _rights: Verdicts[_AccessStatus] = field(init=False, repr=False)
    _salt: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._tokens = Verdicts(lambda _: TOKEN_LIFE_S)
        self._rights = Verdicts(lambda verdict: ALLOW_LIFE_S if verdict.allowed else DENY_LIFE_S)
        self._salt = secrets.token_bytes(32)

    async def enter(self, connection: ssl.SSLObject | None, authorization: str, method: str, path: str) -> User:
        """Who asks, when they may; from the TLS connection, the Authorization header, and what is asked.

        Raises `Refused`: 401, 403, or 500 and 503 when there was no verdict.
        """
        user = certificate_user(connection, self.now()) or await self._token_user(bearer_token(authorization))
        if user is None:
            raise Refused(401, "Unauthorized")
        await self.authorize(user, attributes(method, path))
        return user

    async def authorize(self, user: User, wanted: list[Attributes]) -> None:
        """Return when home's apiserver allows `user` one of `wanted`. Raises `Refused` otherwise."""
        for one in wanted:
            try:
                verdict = await self._right(user, one)
            except (ApiError, msgspec.MsgspecError, TimeoutError) as error:
                self._log_failure("access review", error)
                raise Refused(
                    500,
                    f"Authorization error (user={user.username}, verb={one.verb}, resource=nodes, "
                    f"subresource={one.subresource})",
                ) from error
            if verdict.allowed and not verdict.denied:
                return
        subresources = " ".join(one.subresource for one in wanted)
        raise Refused(
            403,
            f"Forbidden (user={user.username}, verb={wanted[0].verb}, resource=nodes, "
            f"subresource(s)=[{subresources}])\n",
        )

    async def _right(self, user: User, wanted: Attributes) -> _AccessStatus:
        key = self._hash(msgspec.json.encode((user, wanted)))
        return await self._rights.get(key, lambda: self._review_access(user, wanted))

    async def _token_user(self, token: str) -> User | None:
        if not token:
            return None
        try:
            return (await self._tokens.get(self._hash(token.encode()), lambda: self._review_token(token))).user
        except (ApiError, msgspec.MsgspecError, TimeoutError) as error:
            self._log_failure("token review", error)
            # The kubelet says 401 here; but then the client would throw away a good token.
            raise Refused(503, "authentication is not available") from error

    async def _review_token(self, token: str) -> _Known:
        # Without audiences, as a kubelet's: a token for anybody but the apiserver is not authenticated.
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
        async with asyncio.timeout(REVIEW_LIMIT_S):
            answer = await self.home.create(TOKEN_REVIEWS, "", review)
        status = msgspec.json.decode(answer, type=_TokenReview).status
        if not status.authenticated or not status.user.username:
            return _Known(None)
        return _Known(authenticated(status.user))

    async def _review_access(self, user: User, wanted: Attributes) -> _AccessStatus:
        spec: dict[str, Any] = {
            "user": user.username,
            "groups": user.groups,
            "uid": user.uid,
            "extra": user.extra,
            "resourceAttributes": {
                "verb": wanted.verb,
                "version": "v1",
                "resource": "nodes",
                "subresource": wanted.subresource,
                "name": self.node,
            },
        }
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        async with asyncio.timeout(REVIEW_LIMIT_S):
            answer = await self.home.create(ACCESS_REVIEWS, "", review)
        return msgspec.json.decode(answer, type=_AccessReview).status

    def _hash(self, key: bytes) -> bytes:
        return hmac.digest(self._salt, key, hashlib.sha256)

    def _log_failure(self, review: str, error: Exception) -> None:
        log.warning(
            "no verdict from home", extra={"node": self.node, "review": review, "error": str(error) or "timed out"}
        )


def certificate_user(connection: ssl.SSLObject | None, now: datetime) -> User | None:
    """The user of the client certificate the handshake verified (CN is the name, O the groups); else None.

    Looked at anew for each request, since a connection may outlive its certificate.
    """
    if connection is None or connection.context.verify_mode == ssl.CERT_NONE:
        return None
    der = connection.getpeercert(binary_form=True)
    if not der:
        return None
    try:
        certificate = x509.load_der_x509_certificate(der)
        subject = certificate.subject
        valid = certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc
    except ValueError:  # OpenSSL let it pass, but it is none: nobody
        return None
    # Go takes the last of several common names (crypto/x509/pkix, FillFromRDNSequence).
    names = [str(name.value) for name in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if not valid or not names or not names[-1]:
        return None
    groups = [str(name.value) for name in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    return authenticated(User(names[-1], groups=groups))


def authenticated(user: User) -> User:
    """The user as a member of `system:authenticated`, as every authenticator adds it."""
    if AUTHENTICATED in user.groups or "system:unauthenticated" in user.groups:
        return user
    return msgspec.structs.replace(user, groups=[*user.groups, AUTHENTICATED])


def bearer_token(header: str) -> str:
    """The token of an Authorization header; "" when it holds none (k8s.io/apiserver request/bearertoken)."""
    parts = header.strip().split(" ", 2)
    return parts[1] if len(parts) > 1 and parts[0].lower() == "bearer" and parts[1].isascii() else ""
