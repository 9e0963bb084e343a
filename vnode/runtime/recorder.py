"""Events on users' objects: deduplicated, rate-limited, and never in anybody's way.

Only what a user can mend, or must know, becomes an Event. The same (object, reason, message) is one Event whose
`series` count goes up; writing happens in a task of its own from a bounded queue, and a full queue drops the Event,
not the work (it is counted in the log).
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Final, Literal, NamedTuple

from cachetools import TTLCache

from vnode.errors import ApiError, Conflict, NotFound
from vnode.kube.client import EVENTS, MERGE_PATCH, Client
from vnode.kube.objects import JsonDict, Key, timestamp, utc_now
from vnode.names import USER_AGENT

log = logging.getLogger(__name__)

MAX_MESSAGE: Final = 1024  # the apiserver's limit for `message` is of this size
QUIET_S: Final = 60.0  # a repeated Event is written at most this often


class Regarding(NamedTuple):
    """The object an Event is about."""

    kind: str
    key: Key
    uid: str
    api_version: str = "v1"


class Recorder:
    """Writes Events to the home cluster. `instance` goes into `reportingInstance` (the node's name)."""

    def __init__(self, home: Client, instance: str, now: Callable[[], datetime] = utc_now) -> None:
        self._home = home
        self._instance = instance
        self._now = now
        self._queue: asyncio.Queue[tuple[Regarding, str, str, str]] = asyncio.Queue(maxsize=1000)
        timer = lambda: self._now().timestamp()  # noqa: E731
        self._recent: TTLCache[tuple[str, str, str], bool] = TTLCache(5000, QUIET_S, timer)
        self._counts: TTLCache[str, int] = TTLCache(5000, 3600, timer)

    def event(self, regarding: Regarding, kind: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """Have an Event written soon; the same one is not written again for a minute."""
        message = message[:MAX_MESSAGE]
        identity = (regarding.uid, reason, message)
        if identity in self._recent:
            return
        self._recent[identity] = True
        try:
            self._queue.put_nowait((regarding, kind, reason, message))
        except asyncio.QueueFull:
            log.warning("event dropped", extra={"key": str(regarding.key), "reason": reason})

    async def run(self) -> None:
        """Write Events until cancelled."""
        while True:
            regarding, kind, reason, message = await self._queue.get()
            try:
                await self._write(regarding, kind, reason, message)
            except ApiError as error:
                log.info("event not written", extra={"key": str(regarding.key), "reason": reason, "error": str(error)})

    async def _write(self, regarding: Regarding, kind: str, reason: str, message: str) -> None:
        digest = hashlib.sha256(f"{regarding.uid}/{reason}/{message}".encode()).hexdigest()[:16]
        namespace = regarding.key.namespace or "default"
        key = Key(namespace, f"{regarding.key.name[:230]}.{digest}")
        moment = timestamp(self._now())
        count = self._counts.get(digest, 0) + 1
        self._counts[digest] = count
        if count > 1:
            try:
                await self._home.patch(EVENTS, key, {"count": count, "lastTimestamp": moment}, MERGE_PATCH)
            except NotFound:
                pass  # expired: written anew below
            else:
                return
        manifest: JsonDict = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"namespace": namespace, "name": key.name},
            "involvedObject": {
                "apiVersion": regarding.api_version,
                "kind": regarding.kind,
                "namespace": regarding.key.namespace,
                "name": regarding.key.name,
                "uid": regarding.uid,
            },
            "type": kind,
            "reason": reason,
            "message": message,
            "source": {"component": USER_AGENT, "host": self._instance},
            "reportingComponent": USER_AGENT,
            "reportingInstance": self._instance,
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "count": count,
        }
        try:
            await self._home.create(EVENTS, namespace, manifest)
        except Conflict:  # written by an earlier run of ours
            await self._home.patch(EVENTS, key, {"lastTimestamp": moment}, MERGE_PATCH)
