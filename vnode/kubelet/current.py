"""Things that change under us: a value whose next can be waited for, and one API object followed for ever.

For what `runtime.informer` is too much for: a single ConfigMap, a single CertificateSigningRequest.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator
from typing import Generic, TypeVar, cast

from vnode.errors import Idle, NotFound
from vnode.kube.client import Client, Resource
from vnode.kube.objects import Key, Object, parse_object
from vnode.kube.watch import Source

T = TypeVar("T")


class Current(Generic[T]):
    """A value replaced now and then; whoever serves it asks to be told by an Event."""

    def __init__(self, value: T) -> None:
        self.value = value
        self._listeners: set[asyncio.Event] = set()

    def put(self, value: T) -> None:
        """Replace the value; listeners are told when it differs."""
        if value != self.value:
            self.value = value
            for event in self._listeners:
                event.set()

    @contextlib.contextmanager
    def telling(self, event: asyncio.Event) -> Iterator[None]:
        """While inside, `event` is set at each change."""
        self._listeners.add(event)
        try:
            yield
        finally:
            self._listeners.discard(event)


async def versions(client: Client, resource: Resource, key: Key) -> AsyncGenerator[bytes | None, None]:
    """The object as it is now, then each time it may have changed; None while it does not exist.

    Needs `get` and `watch` on this one name only, which RBAC can grant. Raises `ApiError`: the caller waits and
    begins again, for it knows whether a refusal is worth a word to the user.
    """
    prefix = f"{resource.prefix}/namespaces/{key.namespace}" if key.namespace else resource.prefix
    source = Source(client, Resource(prefix, resource.plural), {"fieldSelector": f"metadata.name={key.name}"})
    while True:
        try:
            raw: bytes | None = await client.get(resource, key)
        except NotFound:
            raw = None
        yield raw
        await _change_after(source, parse_object(raw).version if raw is not None else 0)


async def _change_after(source: Source, version: int) -> None:
    """Return when the object may not be what it was at `version` (0: absent) any more."""
    while True:
        # From version 0, which reports what exists as added: the object's own may be too old to watch from.
        watch = cast(AsyncGenerator[tuple[str, Object], None], source.watch(0))
        with contextlib.suppress(Idle):
            async with contextlib.aclosing(watch) as events:
                async for kind, item in events:
                    if kind == "DELETED" or (kind != "BOOKMARK" and item.version > version):
                        return
            await asyncio.sleep(1.0)  # streams end all the time; one that ends at once must not become a loop
