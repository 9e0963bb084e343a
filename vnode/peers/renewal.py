"""The credential of a peer that renews itself: a ServiceAccount's token that asks for its own successor.

Half-way through its life vnode asks for the next one, with the old one and the right to make tokens for its own account
(`roles`), and puts it where the old one was: so a month's token outlives any time vnode is down for up to two weeks.
After that `vnode peer kubeconfig` makes another. Credentials of other kinds (exec plugins, token files, certificates)
are renewed by who hands them out. Run by `session`.
"""

import asyncio
import base64
import logging
from collections.abc import Callable, Coroutine
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from vnode.errors import ApiError, Unavailable
from vnode.kube import token
from vnode.kube.client import MERGE_PATCH, SECRETS, Client
from vnode.kube.credentials import Credentials
from vnode.kube.objects import Key
from vnode.kube.token import AccountToken

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 3600.0  # the loop's clock stands still while a machine sleeps, tokens do not
RETRY_S: Final = 600.0

Keep = Callable[[str], Coroutine[Any, Any, None]]


class NotKept(Exception):
    """The new token cannot be put where the old one is; the message says why."""


class TokenRenewal:
    """`keep` puts a new token where `credentials` find it, or raises `NotKept`."""

    def __init__(self, peer: Client, credentials: Credentials, keep: Keep, now: Callable[[], datetime]) -> None:
        self._peer = peer
        self._credentials = credentials
        self._keep = keep
        self._now = now
        self._told = ""

    async def run(self) -> None:
        """Renew what is a token that renews itself, until cancelled: other credentials may become one by an edit."""
        while True:
            wait_s = LOOK_EVERY_S
            try:
                connection = await self._credentials.current()
                held = token.read(connection.headers.get("Authorization", ""))
                if held is not None:
                    if self._now() >= held.half_way:
                        await self._renew(held)
                        self._credentials.rejected(connection)  # to be read anew
                    rest = (held.half_way - self._now()).total_seconds()
                    wait_s = min(max(rest, RETRY_S), LOOK_EVERY_S)
            except (ApiError, NotKept) as error:
                self._tell(error)
                wait_s = RETRY_S
            await asyncio.sleep(wait_s)

    async def _renew(self, held: AccountToken) -> None:
        new = await token.request(self._peer, held.namespace, held.account, held.ends - held.issued)
        await self._keep(new)
        ends = after.ends.isoformat() if (after := token.read(new)) else "never"
        log.info("credential renewed", extra={"account": held.account, "until": ends})
        self._told = ""

    def _tell(self, error: Exception) -> None:
        """A human may have to act, in days: it is said once until something else is to be said."""
        if str(error) != self._told and not isinstance(error, Unavailable):
            log.warning("credential cannot be renewed", extra={"error": str(error)})
            self._told = str(error)


def in_secret(home: Client, place: Key, entry: str, context: str) -> Keep:
    """Puts tokens into the kubeconfig that is an entry of a Secret; whoever follows the Secret hears of it."""

    async def keep(new: str) -> None:
        secret = msgspec.json.decode(await home.get(SECRETS, place))
        try:
            held = base64.b64decode(secret.get("data", {}).get(entry, "")).decode()
        except ValueError:
            raise NotKept(f"Secret {place} holds no text") from None
        text = token.with_token(held, context, new)
        if text is None:
            raise NotKept(f"Secret {place} holds no token")
        meta = {name: secret["metadata"][name] for name in ("uid", "resourceVersion")}
        patch = {"metadata": meta, "data": {entry: base64.b64encode(text.encode()).decode()}}
        await home.patch(SECRETS, place, patch, MERGE_PATCH)

    return keep


def in_file(path: str, context: str) -> Keep:
    """Puts tokens into a kubeconfig file."""

    async def keep(new: str) -> None:
        await asyncio.to_thread(_rewrite, Path(path), context, new)

    return keep


def _rewrite(path: Path, context: str, new: str) -> None:
    """Whoever reads the file meets the old text or the new, whole, and readable by its owner only."""
    try:
        text = token.with_token(path.read_text(encoding="utf-8"), context, new)
        if text is None:
            raise NotKept(f"{path} holds no token")
        fresh = path.with_name(f".{path.name}.new")
        fresh.unlink(missing_ok=True)
        fresh.touch(mode=0o600)
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)
    except UnicodeDecodeError:
        raise NotKept(f"{path} holds no text") from None
    except OSError as error:
        raise NotKept(f"{path}: {error.strerror or error}; it must be writable, or the peer a Peer object") from error
