"""`follow`: list and watch of one resource as one endless iterator.

What none of the libraries does (`python.md` section 3): pages, bookmarks, 410 by status and by ERROR event, a server
that was restored from a backup, `Retry-After`, jittered backoff, an idle limit against half-open connections, and an
immediate resume after a stream that simply ended (a busy apiserver closes watches all the time). Used by
`runtime.informer`.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from vnode.errors import ApiError, Gone, Idle, Rejected, TooLong, Unauthorized, Unavailable
from vnode.kube.client import JSON, METADATA, METADATA_LIST, Client, Resource
from vnode.kube.objects import (
    Key,
    Object,
    parse_event,
    parse_flat,
    parse_list,
    parse_metadata,
    parse_object,
    version_number,
)

log = logging.getLogger(__name__)

PAGE: Final = 500
IDLE_LIMIT_S: Final = 75.0  # bookmarks come about once a minute, though not for a resource where nothing happens
SHORT_S: Final = 1.0  # a watch that ends sooner, and told nothing, is not an ordinary renewal
MAX_LINE: Final = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Listed:
    """Everything there is in `namespace` ("": in all), as of `version`."""

    items: list[Object]
    version: int
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class Applied:
    """One object was added or changed."""

    item: Object


@dataclass(frozen=True, slots=True)
class Deleted:
    """One object is gone; `item` is its last state."""

    item: Object


Event = Listed | Applied | Deleted


@dataclass(slots=True)
class Backoff:
    """Delays that double from `base_s` to `cap_s`, with jitter, until `reset`."""

    base_s: float = 0.2
    cap_s: float = 20.0
    _tries: int = field(default=0, init=False)

    def next(self) -> float:
        """The next delay in seconds."""
        delay = min(self.cap_s, self.base_s * 2.0 ** min(self._tries, 30))
        self._tries += 1
        return delay * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret

    def reset(self) -> None:
        """Begin again at `base_s`."""
        self._tries = 0


@dataclass(frozen=True, slots=True)
class Source:
    """What to follow: a resource, selectors, and how its objects are told: `parse_metadata`, `parse_flat`, or whole.

    `namespace` restricts it to one namespace.
    `optional`: a refusal (no such right) ends `follow` with `Rejected`, where it else waits for the right to be given.
    A credential that is refused is no such refusal; it is renewed.
    """

    client: Client
    resource: Resource
    params: Mapping[str, str] = field(default_factory=dict)
    metadata_only: bool = False
    flat: bool = False
    optional: bool = False
    namespace: str = ""

    async def list(self) -> Listed:
        """The whole collection, page by page, consistent (never from a stale cache).

        Pages get smaller where the objects are so large that an answer is `TooLong`.
        """
        items: list[Object] = []
        limit = PAGE
        accept = METADATA_LIST if self.metadata_only else JSON
        params = {**self.params, "limit": str(limit)}
        while True:
            try:
                body = await self.client.list_page(self.resource, self.namespace, params, accept)
                page, version, more = parse_list(body, self._parse)
            except TooLong:
                if limit == 1:
                    raise
                limit //= 2
                params["limit"] = str(limit)
                continue
            items += page
            if not more:
                return Listed(items, version_number(version), self.namespace)
            params["continue"] = more
            await asyncio.sleep(0)  # a page takes milliseconds to decode: let the others run between two

    async def version(self) -> int:
        """The collection's version now, by the cheapest request there is."""
        accept = METADATA_LIST if self.metadata_only else JSON
        page = await self.client.list_page(self.resource, self.namespace, {**self.params, "limit": "1"}, accept)
        return version_number(parse_list(page)[1])

    async def watch(self, since: int) -> AsyncIterator[tuple[str, Object]]:
        """Changes after `since`, BOOKMARKs included, until the server ends the stream.

        Raises `Gone` when `since` is too old, `Unavailable` when the stream breaks or is silent for too long.
        """
        params = {
            **self.params,
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": str(since),
            "timeoutSeconds": str(random.randint(290, 590)),  # noqa: S311 - spread the renewals
        }
        accept = METADATA if self.metadata_only else JSON
        events = self.client._metrics.kube_events.labels(self.client.side, self.resource.plural)  # noqa: SLF001
        async with self.client.stream(
            "watch",
            self.resource,
            self.resource.path(Key(self.namespace, "")),
            params,
            accept=accept,
            idle_s=IDLE_LIMIT_S,
        ) as content:
            rest = b""
            async for chunk in content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                if len(rest) > MAX_LINE:
                    raise Unavailable(f"a watch event is longer than {MAX_LINE} bytes")
                for line in lines:
                    if line:
                        event = parse_event(line)
                        if event.type == "ERROR":
                            raise _stream_error(event.raw)
                        events.inc()
                        yield event.type, self._parse(event.raw)

    @property
    def _parse(self) -> Callable[[msgspec.Raw], Object]:
        if self.metadata_only:
            return parse_metadata
        return parse_flat if self.flat else parse_object


class _Status(msgspec.Struct):
    code: int = 0
    message: str = ""
    reason: str = ""


def _stream_error(raw: msgspec.Raw) -> ApiError:
    status = msgspec.json.decode(raw, type=_Status)
    if status.code == 410 or status.reason in ("Expired", "Gone"):
        return Gone(status.message, 410, status.reason)
    return Unavailable(status.message or "the watch ended with an error", status.code, status.reason)


async def follow(source: Source, backoff: Backoff) -> AsyncIterator[Event]:
    """List, then watch, for ever: errors are logged, waited out and recovered from here.

    The first item is a `Listed`; another comes whenever history was lost. A consumer that diffs `Listed` against
    what it holds (`runtime.store`) misses nothing.
    """
    version: int | None = None
    broke = False
    loop = asyncio.get_running_loop()
    while True:
        started, told, listed_now = loop.time(), False, version is None
        try:
            if broke and version is not None and await source.version() < version:
                version = None  # restored from a backup meanwhile: a watch from its future would stay silent
            broke = False
            if version is None:
                source.client._metrics.kube_lists.labels(source.client.side, source.resource.plural).inc()  # noqa: SLF001
                listed = await source.list()
                version = listed.version
                yield listed
            async for kind, item in source.watch(version):
                version = item.version or version
                told = True
                backoff.reset()
                if kind == "DELETED":
                    yield Deleted(item)
                elif kind != "BOOKMARK":
                    yield Applied(item)
            # client-go, too, calls it an error ("very short watch"): without a pause a broken proxy would be hammered.
            if not told and loop.time() - started < SHORT_S:
                await asyncio.sleep(backoff.next())
        except Idle:
            log.debug("watch silent, resuming", extra={"side": source.client.side, "resource": source.resource.plural})
        except Gone:
            if not told and listed_now:
                await asyncio.sleep(backoff.next())  # the history we have just been given is lost already
            version = None
        except (ApiError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            if source.optional and isinstance(error, Rejected) and not isinstance(error, Unauthorized):
                raise
            delay = max(backoff.next(), getattr(error, "after", 0.0))
            log.warning(
                "watch broke, will resume",
                extra={
                    "side": source.client.side,
                    "resource": source.resource.plural,
                    "error": str(error),
                    "delay_s": round(delay, 2),
                },
            )
            broke = True
            if not isinstance(error, ApiError):
                version = None  # an event we could not read: the list is the way round it
            await asyncio.sleep(delay)
