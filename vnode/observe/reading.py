"""Asking a server on a person's behalf: typed answers soon, or one line that says which side failed and how.

Called by `gather` and `completion`.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec

from vnode.errors import ApiError, NotFound, VnodeError
from vnode.kube.client import Client, Resource
from vnode.kube.credentials import Connection, Credentials
from vnode.kube.objects import Key
from vnode.observe.objects import Page
from vnode.telemetry.metrics import Metrics

LIMIT_S: Final = 8.0  # of one request: somebody waits for it
PAGE: Final = "500"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Plain:
    """The way to a port that is open to whoever reaches it, for `Client`."""

    url: str

    async def current(self) -> Connection:
        return Connection(self.url, None, {})

    def rejected(self, connection: Connection) -> None:
        """There is no credential to renew."""


@asynccontextmanager
async def opened(credentials: Credentials, side: str) -> AsyncIterator[Client]:
    """A client, closed at the end. Raises `VnodeError` when there is no connection to be had."""
    client = Client(credentials, side, Metrics())
    try:
        # By itself, without our limit: an exec plugin may have to ask its user.
        async with _told(side, limit_s=None):
            await client.connection()
        yield client
    finally:
        await client.close()


async def own_namespace(client: Client) -> str:
    """The namespace of the kubeconfig's context, as kubectl has it."""
    return (await client.connection()).namespace or "default"


async def every(client: Client, resource: Resource, page: type[Page[T]], namespace: str = "", **params: str) -> list[T]:
    """All objects of a kind, of one namespace or ("") all. Raises `VnodeError`."""
    items: list[T] = []
    asked = {**params, "limit": PAGE}
    while True:
        async with _told(client.side):
            answer = msgspec.json.decode(await client.list_page(resource, namespace, asked), type=page)
        items += answer.items or ()
        if not answer.metadata.continue_:
            return items
        asked["continue"] = answer.metadata.continue_


async def one(client: Client, resource: Resource, key: Key, kind: type[T]) -> T | None:
    """One object, None when it is absent. Raises `VnodeError`."""
    async with _told(client.side):
        try:
            return msgspec.json.decode(await client.get(resource, key), type=kind)
        except NotFound:
            return None


async def text(client: Client, path: str) -> str:
    """What is at a path. Raises `VnodeError`."""
    async with _told(client.side):
        return (await client.get_path(path)).decode(errors="replace")


@asynccontextmanager
async def _told(side: str, limit_s: float | None = LIMIT_S) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(limit_s):
            yield
    except TimeoutError:
        raise VnodeError(f"{side}: no answer within {limit_s:.0f} s") from None
    except ApiError as error:
        raise VnodeError(f"{side}: {error.message.splitlines()[0] if error.message else 'no answer'}") from error
    except msgspec.DecodeError as error:
        raise VnodeError(f"{side}: an answer that cannot be read: {error}") from error
