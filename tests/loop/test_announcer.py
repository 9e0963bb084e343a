"""reflect.announcer: which Events of a peer are written at home, how often, and what none of it may cost."""

import asyncio
from typing import Any

import pytest

from tests.builders import mirror_of, pod
from tests.core.test_events import PULL
from tests.loop.wire import Answer, Wire, at_work
from vnode.kube.objects import JsonDict
from vnode.kube.watch import Listed
from vnode.reflect.announcer import Announcer
from vnode.runtime.store import Store
from vnode.telemetry.metrics import Metrics

pytestmark = pytest.mark.looptime
EVENTS = "/api/v1/namespaces/shop/events"
BEFORE = "2026-05-01T11:59:59Z"


class Clusters:
    """Both sides' Events: the peer's as it shows them, home's as they were written."""

    def __init__(self, *listed: JsonDict) -> None:
        self.listed = list(listed)
        self.stream: asyncio.Queue[Any] = asyncio.Queue()
        self.written: list[tuple[str, JsonDict]] = []
        self.there: set[str] = set()
        self.refuses = False
        self.peer, self.home = Wire(self._peer), Wire(self._home)
        local, remote = Store(), Store()
        web = pod("web", uid="u1")
        local.apply(Listed([web], 1))
        remote.apply(Listed([mirror_of(web, uid="r1")], 1))
        self.announcer = Announcer(self.home, self.peer, local, remote, Metrics())

    async def _peer(self, _: str, path: str, __: Any) -> Answer:
        if self.refuses:
            return Answer({"message": "events is forbidden"}, 403)
        if path.endswith("&watch"):
            return Answer(more=self.stream)
        return Answer({"metadata": {"resourceVersion": "100"}, "items": self.listed})

    async def _home(self, method: str, path: str, body: Any) -> Answer:
        name = path.removeprefix(f"{EVENTS}/") if method == "PATCH" else body["metadata"]["name"]
        if method == "POST" and name in self.there:
            return Answer({}, 409)
        if method == "PATCH" and name not in self.there:
            return Answer({}, 404)
        self.there.add(name)
        self.written.append((method, body))
        return Answer(body)

    def happens(self, version: int, uid: str = "e1", **fields: Any) -> None:
        """The peer's watch shows an Event."""
        self.stream.put_nowait({"type": "ADDED", "object": event(version, uid, **fields)})


def event(version: int, uid: str = "e1", **fields: Any) -> JsonDict:
    metadata = {**PULL["metadata"], "name": uid, "uid": uid, "resourceVersion": str(version)}
    return {**PULL, **fields, "metadata": metadata}


def counts(clusters: Clusters) -> list[tuple[str, int]]:
    return [(method, body["count"]) for method, body in clusters.written]


async def test_an_event_is_written_once_and_then_counted() -> None:
    clusters = Clusters()
    async with at_work(clusters.announcer.run(BEFORE)):
        clusters.happens(101, count=1)
        await asyncio.sleep(1)
        clusters.happens(102, count=2)
        await asyncio.sleep(1)
        clusters.happens(103, count=2)
        await asyncio.sleep(1)
    assert counts(clusters) == [("POST", 1), ("PATCH", 2)]


async def test_one_that_expired_at_home_is_written_anew() -> None:
    clusters = Clusters()
    async with at_work(clusters.announcer.run(BEFORE)):
        clusters.happens(101, count=1)
        await asyncio.sleep(1)
        clusters.there.clear()
        clusters.happens(102, count=2)
        await asyncio.sleep(1)
    assert counts(clusters) == [("POST", 1), ("POST", 2)]


async def test_the_first_list_tells_what_came_since_we_last_ran_and_no_more() -> None:
    old, new = event(50, "old", lastTimestamp=BEFORE), event(60, "new")
    clusters = Clusters(old, new)
    async with at_work(clusters.announcer.run(BEFORE)):
        await asyncio.sleep(1)
    (written,) = clusters.written
    assert written[1]["lastTimestamp"] == PULL["lastTimestamp"]


async def test_an_event_that_an_earlier_run_wrote_is_brought_up_to_date() -> None:
    clusters = Clusters()
    async with at_work(clusters.announcer.run(BEFORE)):
        clusters.happens(101, count=1)
        await asyncio.sleep(1)
    again = Clusters(event(102, count=7))
    again.there = clusters.there
    async with at_work(again.announcer.run(BEFORE)):
        await asyncio.sleep(1)
    assert counts(again) == [("PATCH", 7)]


async def test_a_later_list_tells_only_what_is_newer_than_all_we_saw() -> None:
    clusters = Clusters(event(90, "seen"))
    async with at_work(clusters.announcer.run(BEFORE)):
        await asyncio.sleep(1)
        clusters.listed = [event(90, "seen", count=1), event(120, "missed", count=5)]
        clusters.stream.put_nowait({"type": "ERROR", "object": {"code": 410}})
        await asyncio.sleep(30)
    assert counts(clusters) == [("POST", 3), ("POST", 5)]


@pytest.mark.parametrize(
    "about",
    [{"uid": "r2"}, {"name": "theirs"}, {"namespace": "kube-system"}],
    ids=["an earlier mirror", "a stranger", "elsewhere"],
)
async def test_what_happens_to_others_is_not_told(about: JsonDict) -> None:
    clusters = Clusters()
    async with at_work(clusters.announcer.run(BEFORE)):
        clusters.happens(101, involvedObject={**PULL["involvedObject"], **about})
        await asyncio.sleep(1)
    assert clusters.written == []


async def test_a_pod_that_talks_without_end_is_cut_off_and_the_rest_comes_slowly() -> None:
    clusters = Clusters()
    async with at_work(clusters.announcer.run(BEFORE)):
        for number in range(200):
            clusters.happens(101 + number, f"e{number}")
        await asyncio.sleep(1)
        assert len(clusters.written) == 25
        await asyncio.sleep(301)
        clusters.happens(500, "later")
        await asyncio.sleep(1)
    assert len(clusters.written) == 26


async def test_a_peer_that_does_not_let_us_read_events_shows_none_and_nothing_ends() -> None:
    clusters = Clusters()
    clusters.refuses = True
    async with at_work(clusters.announcer.run(BEFORE)):
        await asyncio.sleep(100)
    assert clusters.written == []
