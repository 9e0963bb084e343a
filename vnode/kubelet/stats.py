"""What our Pods use, asked of the peer at most once in ten seconds, whoever and however many want to know.

Usage comes from the peer's metrics API where it is served, else from the kubelets of those nodes that run mirrors,
through the apiserver's proxy; probe and cAdvisor metrics from these kubelets alone. Of either only our own Pods' lines
are kept, under home's names (`usage`, `exposition`). Nobody asks, nothing is sent. Called by `reports`.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Final, TypeVar

from vnode.errors import ApiError, NotFound, Rejected, Unavailable
from vnode.kube.client import JSON, NODES, Client, Params, Resource
from vnode.kube.objects import Key
from vnode.kubelet.auth import Verdicts
from vnode.kubelet.exposition import Family, Renamed, merged, relabelled, written
from vnode.kubelet.measures import Reading, Subject, api_readings, kubelet_readings, subject
from vnode.kubelet.request import BoundPods
from vnode.kubelet.usage import Ledger, Usage

log = logging.getLogger(__name__)

POD_METRICS: Final = Resource("/apis/metrics.k8s.io/v1beta1", "pods")
INTERVAL_S: Final = 10.0  # a kubelet measures as often
LOOK_LIMIT_S: Final = 8.0  # metrics-server gives a kubelet 10
API_AGAIN_S: Final = 300.0  # a peer that has no metrics API, or not for us, is asked again
NODES_AT_ONCE: Final = 8
MAX_ANSWER: Final = 16 * 2**20
MAX_KEPT: Final = 32 * 2**20

Readings = dict[Key, dict[str, Reading]]
T = TypeVar("T")


class Stats:
    """One node's. `selector` selects our mirrors at the peer by their labels, in `places` there ("": everywhere)."""

    def __init__(
        self,
        peer: Client,
        selector: str,
        pods: BoundPods,
        now: Callable[[], datetime],
        places: Sequence[str] = ("",),
    ) -> None:
        self._peer = peer
        self._selector = selector
        self._places = places
        self._pods = pods
        self._now = now
        self._ledger = Ledger(now().timestamp())
        self._looks: Verdicts[Usage] = Verdicts(lambda _: INTERVAL_S)
        self._texts: Verdicts[bytes] = Verdicts(lambda _: INTERVAL_S)
        self._api_again_s = float("-inf")

    async def usage(self) -> Usage:
        """The newest look, of the last ten seconds."""
        return await self._looks.get(b"", self._look)

    async def text(self, path: str) -> bytes:
        """What the peer's kubelets say of our Pods at `path` (`metrics/probes`, …); nothing where we may not ask.

        Raises `Unavailable` when it is too much to hold.
        """
        return await self._texts.get(path.encode(), lambda: self._text(path))

    async def _look(self) -> Usage:
        subjects = await self._subjects()
        readings: Readings = {}
        try:
            async with asyncio.timeout(LOOK_LIMIT_S):
                if subjects:
                    readings = await self._readings(subjects)
        except (ApiError, TimeoutError) as error:
            # Kept as an answer: who asks next within the interval must not have the peer asked again.
            log.info("no usage from the peer", extra={"peer": self._peer.side, "error": str(error) or "timed out"})
            return self._ledger.failed()
        return await asyncio.to_thread(self._ledger.book, subjects, readings, self._now().timestamp())

    async def _subjects(self) -> list[Subject]:
        pairs = list(self._pods())  # objects never change: the thread may read them
        return await asyncio.to_thread(
            lambda: [subject(local, remote) for local, remote in pairs if remote is not None]
        )

    async def _readings(self, subjects: Sequence[Subject]) -> Readings:
        loop = asyncio.get_running_loop()
        if loop.time() >= self._api_again_s:
            try:
                readings: Readings = {}
                for place in self._places:
                    path = POD_METRICS.path(Key(place, ""))
                    answer = await self._read(POD_METRICS, path, {"labelSelector": self._selector}, JSON)
                    readings |= await asyncio.to_thread(api_readings, answer, subjects)
                if readings:
                    return readings
            except (NotFound, Rejected):
                self._api_again_s = loop.time() + API_AGAIN_S
            except (ApiError, ValueError) as error:
                log.info("metrics API does not tell", extra={"peer": self._peer.side, "error": str(error)})
        now_s = self._now().timestamp()
        parts = await self._of_nodes(subjects, "metrics/resource", lambda text: kubelet_readings(text, subjects, now_s))
        return {key: reading for part in parts for key, reading in part.items()}

    async def _text(self, path: str) -> bytes:
        subjects = await self._subjects()
        ours = {each.remote: Renamed(each.key.namespace, each.uid) for each in subjects}

        def rename(namespace: str, pod: str) -> Renamed | None:
            return ours.get(Key(namespace, pod))

        parts: list[dict[str, Family]] = []
        try:
            async with asyncio.timeout(LOOK_LIMIT_S):
                parts = await self._of_nodes(subjects, path, lambda text: relabelled(text, rename))
        except (ApiError, TimeoutError) as error:
            detail = {"peer": self._peer.side, "path": path, "error": str(error) or "timed out"}
            log.info("peer's kubelets do not tell", extra=detail)
        size = sum(len(line) for part in parts for family in part.values() for line in family.lines)
        if size > MAX_KEPT:
            raise Unavailable(f"{path} of these Pods is longer than {MAX_KEPT} bytes")
        return await asyncio.to_thread(lambda: written(merged(parts)))

    async def _of_nodes(self, subjects: Iterable[Subject], path: str, read: Callable[[str], T]) -> list[T]:
        """What `read` makes of the answer of each node that runs mirrors. Raises when none of them answers."""
        nodes = sorted({each.node for each in subjects if each.node}) if "" in self._places else []
        places, found, errors = asyncio.Semaphore(NODES_AT_ONCE), list[T](), list[ApiError]()

        async def ask(node: str) -> None:
            try:
                async with places:
                    target = NODES.path(Key("", node), f"proxy/{path}")
                    answer = await self._read(NODES, target, {}, "text/plain")
                    found.append(await asyncio.to_thread(lambda: read(answer.decode(errors="replace"))))
            except ApiError as error:
                errors.append(error)

        async with asyncio.TaskGroup() as group:
            for node in nodes:
                group.create_task(ask(node), name=f"{self._peer.side}/{path}/{node}")
        if errors and not found:
            raise errors[0]
        if errors:
            detail = {"peer": self._peer.side, "silent": len(errors), "of": len(nodes), "error": str(errors[0])}
            log.info("some of the peer's kubelets do not tell", extra=detail)
        return found

    async def _read(self, resource: Resource, path: str, params: Params, accept: str) -> bytes:
        content = bytearray()
        async with self._peer.stream("get", resource, path, params, accept=accept, idle_s=LOOK_LIMIT_S) as stream:
            while chunk := await stream.readany():
                content += chunk
                if len(content) > MAX_ANSWER:
                    raise Unavailable(f"the answer is longer than {MAX_ANSWER} bytes")
        return bytes(content)
