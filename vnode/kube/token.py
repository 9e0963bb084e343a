"""Tokens of ServiceAccounts: what one says of itself, how the next is asked for, and where it stands in a kubeconfig.

Nothing here trusts a token: its claims are read only to know when to renew it. Called by `join` and `peers.renewal`.
"""

import base64
import binascii
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
import yaml

from vnode.errors import ApiError
from vnode.kube.client import Client, Resource
from vnode.kube.objects import JsonDict

SERVICE_ACCOUNTS: Final = Resource("/api/v1", "serviceaccounts")


@dataclass(frozen=True, slots=True)
class AccountToken:
    """Whose token it is, and how long it is good."""

    namespace: str
    account: str
    issued: datetime
    ends: datetime

    @property
    def half_way(self) -> datetime:
        """When to ask for the next: as much time again is left for that to succeed."""
        return self.issued + (self.ends - self.issued) / 2


class _Claims(msgspec.Struct):
    sub: str
    iat: int
    exp: int


def read(authorization: str) -> AccountToken | None:
    """The ServiceAccount's token in an Authorization header; None when it is something else, or has no end."""
    parts = authorization.removeprefix("Bearer ").split(".")
    try:
        body = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        claims = msgspec.json.decode(body, type=_Claims)
        realm, kind, namespace, account = claims.sub.split(":")
        issued, ends = (datetime.fromtimestamp(stamp, UTC) for stamp in (claims.iat, claims.exp))
    except (IndexError, binascii.Error, msgspec.MsgspecError, ValueError, OverflowError, OSError):
        return None
    return AccountToken(namespace, account, issued, ends) if (realm, kind) == ("system", "serviceaccount") else None


class _Status(msgspec.Struct):
    token: str


class _Answer(msgspec.Struct):
    status: _Status


async def request(client: Client, namespace: str, account: str, life: timedelta) -> str:
    """A new token of the account, by TokenRequest; the server may make it shorter-lived. Raises `ApiError`."""
    manifest: JsonDict = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": int(life.total_seconds())},
    }
    answer = await client.create(SERVICE_ACCOUNTS, namespace, manifest, name=account, subresource="token")
    try:
        return msgspec.json.decode(answer, type=_Answer).status.token
    except msgspec.MsgspecError:
        raise ApiError(f"{client.side}: the answer to a TokenRequest has no token") from None


def with_token(kubeconfig: str, context: str, token: str) -> str | None:
    """The kubeconfig's text with another token for the context's user; None where that user has no token in it.

    What is no kubeconfig has none: somebody may have edited it since it was used.
    """
    try:
        document = yaml.safe_load(kubeconfig)
        context = context or document["current-context"]
        user = _named(document["contexts"], context)["context"]["user"]
        entry = _named(document["users"], user)["user"]
        if not isinstance(entry.get("token"), str):
            return None
        entry["token"] = token
        return yaml.safe_dump(document, sort_keys=False)
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError):
        return None  # PyYAML lets all of them out


def _named(items: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next((item for item in items if item["name"] == name), {})
