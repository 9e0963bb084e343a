"""Two facts, never one: the Lease says that vnode lives, the probe whether the peer answers.

The virtual-kubelet library hangs both on one ping, so that its users only ever see the Unknown which the node
lifecycle controller writes. Here the Lease goes on while the peer is away, and the Node says at once what is wrong.
Run by `controller`, which turns the probe's verdict into the Ready condition.
"""

import asyncio
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import msgspec

from vnode.errors import ApiError, Conflict, NotFound, Unauthorized, Unavailable
from vnode.kube.client import LEASES, Client
from vnode.kube.objects import JsonDict, Key, micro_timestamp
from vnode.kube.watch import Backoff
from vnode.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

LEASE_NAMESPACE: Final = "kube-node-lease"
LEASE_S: Final = 40
RENEW_EVERY_S: Final = 10.0
RENEW_LIMIT_S: Final = 8.0

# A peer that hangs the moment after a good answer is found out after 3 + 3 * 3.2 s; one that refuses, after 9 s.
PROBE_EVERY_S: Final = 3.0
PROBE_LIMIT_S: Final = 3.0  # of the request
PROBE_WAIT_S: Final = 3.2  # of the whole, credential included
MISSES: Final = 3
SMOOTHING: Final = 0.2  # the share of one round trip in the smoothed one
_PATHS: Final = ("/readyz", "/livez", "/version")  # the first that our credential may read


class Lease:
    """The Node's Lease, renewed each 10 s while `uid` gives the uid of a Node of ours ("" when there is none).

    It is home's probe as well: `returned` is called, synchronously, when home answers after it did not.
    """

    def __init__(
        self,
        home: Client,
        name: str,
        uid: Callable[[], str],
        now: Callable[[], datetime],
        returned: Callable[[], None] = lambda: None,
    ) -> None:
        self._home = home
        self._key = Key(LEASE_NAMESPACE, name)
        self._uid = uid
        self._now = now
        self._returned = returned
        self._held: JsonDict | None = None

    async def run(self) -> None:
        """Renew until cancelled; failures are told and tried again, ever faster than the Lease runs out."""
        backoff = Backoff(base_s=0.2, cap_s=7.0)
        silent = False
        while True:
            delay = RENEW_EVERY_S if self._uid() else 1.0  # soon after the Node is there, which asks nobody
            try:
                async with asyncio.timeout(RENEW_LIMIT_S):
                    await self.renew()
                backoff.reset()
                if silent:
                    silent = False
                    self._returned()
            except (ApiError, TimeoutError) as error:
                self._held = None
                silent = silent or _unanswered(error)
                if isinstance(error, TimeoutError):
                    await self._home.renew_connections()
                delay = backoff.next()
                log.warning(
                    "lease not renewed", extra={"node": self._key.name, "error": str(error) or "no answer in time"}
                )
            await asyncio.sleep(delay)

    async def renew(self) -> None:
        """Write the Lease once, created where it is absent. Raises ApiError."""
        while uid := self._uid():
            try:
                if self._held is None:
                    self._held = _lease(await self._home.get(LEASES, self._key))
                self._held = _lease(await self._home.replace(LEASES, self._key, self._renewed(self._held, uid)))
            except Conflict:  # somebody wrote it meanwhile: read again
                self._held = None
            except NotFound:
                self._held = None
                try:
                    manifest = self._renewed({"metadata": {}}, uid)
                    self._held = _lease(await self._home.create(LEASES, LEASE_NAMESPACE, manifest))
                except Conflict:
                    continue
                return
            else:
                return

    def _renewed(self, held: JsonDict, uid: str) -> JsonDict:
        owner = {"apiVersion": "v1", "kind": "Node", "name": self._key.name, "uid": uid}
        metadata = {"namespace": self._key.namespace, "name": self._key.name, "ownerReferences": [owner]}
        spec = {
            "holderIdentity": self._key.name,
            "leaseDurationSeconds": LEASE_S,
            "renewTime": micro_timestamp(self._now()),
        }
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": held["metadata"] | metadata,
            "spec": held.get("spec", {}) | spec,
        }


async def last_renewed(home: Client, name: str) -> str:
    """When the Node's Lease was renewed last, RFC 3339 in whole seconds; "" when there is none yet."""
    try:
        lease = _lease(await home.get(LEASES, Key(LEASE_NAMESPACE, name)))
    except NotFound:
        return ""
    moment = str(lease.get("spec", {}).get("renewTime") or "")
    return f"{moment[:19]}Z" if moment else ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the probe says of the peer; `error` says what failed when it is not `up`."""

    up: bool
    error: str = ""


class Probe:
    """Asks the peer each 3 s whether it is ready; three misses in a row are a failure, one answer ends it.

    `verdict` is None until the first answer or failure. `changed` is called, synchronously, with each new verdict.
    `refusal` is the peer's word when its last answer was that it does not accept our credential, else "".
    """

    def __init__(self, peer: Client, name: str, changed: Callable[[Verdict], None], metrics: Metrics) -> None:
        self.verdict: Verdict | None = None
        self.refusal = ""
        self.round_trip_s: float | None = None  # smoothed
        self._peer = peer
        self._changed = changed
        self._up = metrics.peer_up.labels(name)
        self._seconds = metrics.probe_seconds.labels(name)
        self._path = 0
        self._misses = 0

    async def run(self) -> None:
        """Probe until cancelled."""
        loop = asyncio.get_running_loop()
        asking: asyncio.Task[str] | None = None
        async with asyncio.TaskGroup() as group:
            while True:
                start = loop.time()
                asking = asking or group.create_task(self._ask(), name="probe")
                # Not cancelled when late: it may be renewing the credential, which a plugin may take longer for than
                # a probe may, and which would then never succeed.
                await asyncio.wait({asking}, timeout=PROBE_WAIT_S)
                if asking.done():
                    self._judge(asking.result())
                    asking = None
                else:
                    self._judge(f"no credential to ask with within {PROBE_WAIT_S} s")
                await asyncio.sleep(max(0.0, start + PROBE_EVERY_S - loop.time()))

    async def _ask(self) -> str:
        """One question; what failed, "" when nothing did."""
        try:
            try:
                await self._answer()
            except Unauthorized:
                await self._answer()  # with a credential that was renewed meanwhile, as a rule
        except ApiError as error:
            self.refusal = error.message if isinstance(error, Unauthorized) else ""
            return failure(_PATHS[self._path], error)
        self.refusal = ""
        return ""

    async def _answer(self) -> None:
        """Have the peer answer on the first path that our credential may read. Raises ApiError."""
        loop = asyncio.get_running_loop()
        while True:
            start = loop.time()
            try:
                await self._peer.get_path(_PATHS[self._path], limit_s=PROBE_LIMIT_S)
            except ApiError as error:
                if error.code not in (403, 404) or self._path == len(_PATHS) - 1:
                    raise
                self._path += 1
            else:
                seconds = loop.time() - start
                self._seconds.observe(seconds)
                held = self.round_trip_s
                self.round_trip_s = seconds if held is None else held + SMOOTHING * (seconds - held)
                return

    def _judge(self, error: str) -> None:
        self._misses = self._misses + 1 if error else 0
        if self._misses and self._misses < MISSES:
            return
        if error:
            self._path = 0  # a right that was refused once (the apiserver had just started) may be there by now
        verdict = Verdict(not error, error)
        self._up.set(verdict.up)
        if self.verdict is None or self.verdict.up != verdict.up:
            self.verdict = verdict
            self._changed(verdict)


def failure(path: str, error: ApiError) -> str:
    """One line that says what failed: the checks `/readyz` lists as failed, else the error."""
    failed = re.findall(r"^\[-\](\S+)", error.message, re.MULTILINE)
    if failed:
        return f"{path}: failed: {', '.join(failed)}"
    if isinstance(error.__cause__, TimeoutError):
        return f"{path}: no answer within {PROBE_LIMIT_S:.0f} s"
    lines = error.message.splitlines()
    answer = f"HTTP {error.code}: " if error.code and isinstance(error, Unavailable) else ""
    return f"{path}: {answer}{lines[0] if lines else 'no answer'}"


def _unanswered(error: BaseException) -> bool:
    """Nobody answered. A request that was broken off since home is back (for another node's Lease) is no such case."""
    if isinstance(error, Unavailable):
        return not error.code and not isinstance(error.__cause__, TimeoutError)
    return isinstance(error, TimeoutError)


def _lease(data: bytes) -> JsonDict:
    lease: JsonDict = msgspec.json.decode(data)
    return lease
