"""The Secrets that Peers refer to, each followed by itself: no other Secret is read, and no other namespace.

Made and run by `peers.controller`. Only metadata is watched; the body is read when it is another one.
"""

import asyncio
import base64
import binascii
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from vnode.errors import ApiError, NotFound, Rejected
from vnode.kube.client import SECRETS, Client, Resource
from vnode.kube.objects import Key
from vnode.kube.watch import Backoff, Source, follow

log = logging.getLogger(__name__)

REFUSED_AGAIN_S: Final = 15.0  # a right that is given later is found out in this time


class _Body(msgspec.Struct):
    data: dict[str, str] | None = None


class Secrets:
    """What is in the Secrets of `namespace` that are followed; `changed` is called when that is something else."""

    def __init__(self, home: Client, namespace: str, changed: Callable[[], None]) -> None:
        self.found: dict[
            str, Mapping[str, str] | str
        ] = {}  # texts by key, or why there are none; no entry: not read yet
        self._home = home
        self._namespace = namespace
        self._changed = changed
        self._followed: dict[str, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as self._group:
            await asyncio.Event().wait()

    def follow(self, wanted: Iterable[str]) -> None:
        """Follow exactly the Secrets `wanted` from now on; to be called while `run` runs."""
        assert self._group is not None
        wanted = set(wanted)
        for name in self._followed.keys() - wanted:
            self._followed.pop(name).cancel()
            self.found.pop(name, None)
        for name in wanted - self._followed.keys():
            self._followed[name] = self._group.create_task(self._keep(name), name=f"secret/{name}")

    async def _keep(self, name: str) -> None:
        place = Resource(f"{SECRETS.prefix}/namespaces/{self._namespace}", SECRETS.plural)
        one = {"fieldSelector": f"metadata.name={name}"}
        source = Source(self._home, place, one, metadata_only=True, optional=True)
        while True:
            try:
                async for _ in follow(source, Backoff()):
                    self._take(name, await self._read(name))
            except Rejected as error:
                self._take(name, error.message)
            await asyncio.sleep(REFUSED_AGAIN_S)

    async def _read(self, name: str) -> Mapping[str, str] | str:
        """The Secret's texts, or that there is none; waits for an answer as long as it takes. Raises `Rejected`."""
        backoff = Backoff(base_s=0.5, cap_s=15.0)
        while True:
            try:
                body = msgspec.json.decode(await self._home.get(SECRETS, Key(self._namespace, name)), type=_Body)
            except NotFound:
                return f"there is no such Secret in {self._namespace}"
            except Rejected:
                raise
            except ApiError as error:
                log.info("secret not read, will retry", extra={"secret": name, "error": str(error)})
                await asyncio.sleep(backoff.next())
            else:
                return {key: text for key, value in (body.data or {}).items() if (text := _text(value)) is not None}

    def _take(self, name: str, found: Mapping[str, str] | str) -> None:
        if self.found.get(name) != found:
            self.found[name] = found
            self._changed()


def _text(value: str) -> str | None:
    """A value as text; None for what is none."""
    try:
        return base64.b64decode(value).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
