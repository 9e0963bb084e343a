"""The two facts in virtual time: when the probe speaks, and how the Lease is kept."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest

from tests.loop.wire import Answer, Wire, at_work
from vnode.kube.objects import JsonDict
from vnode.node.heartbeat import Lease, Probe, Verdict
from vnode.telemetry.metrics import Metrics

pytestmark = pytest.mark.looptime

Say = Callable[[str], Awaitable[Answer]]  # path


async def well(_: str) -> Answer:
    await asyncio.sleep(0.01)
    return Answer(b"ok")


async def hang(_: str) -> Answer:
    await asyncio.sleep(3600)
    raise AssertionError("nobody waits that long")


async def refuse(_: str) -> Answer:
    raise aiohttp.ClientConnectionError("refused")


async def etcd_is_down(_: str) -> Answer:
    return Answer(b"[+]ping ok\n[-]etcd failed: reason withheld\nreadyz check failed", 500)


class Peer:
    """A peer that answers as `say` does now, a probe of it, and each verdict with its time."""

    def __init__(self, say: Say, resolve_s: float = 0.0) -> None:
        self.say = say
        self.paths: list[str] = []
        self.heard: list[tuple[float, Verdict]] = []
        self.wire = Wire(self._answer, resolve_s)
        self.probe = Probe(self.wire, "edge", self._changed, Metrics())

    async def _answer(self, method: str, path: str, _: Any) -> Answer:
        self.paths.append(path)
        return await self.say(path)

    def _changed(self, verdict: Verdict) -> None:
        self.heard.append((asyncio.get_running_loop().time(), verdict))


@pytest.mark.parametrize(
    ("broken", "error"),
    [
        (hang, "/readyz: no answer within 3 s"),
        (refuse, "/readyz: https://wire: refused"),
        (etcd_is_down, "/readyz: failed: etcd"),
    ],
)
async def test_a_peer_that_fails_is_told_within_15_s_and_its_return_within_4(broken: Say, error: str) -> None:
    peer, loop = Peer(well), asyncio.get_running_loop()
    async with at_work(peer.probe.run()):
        await asyncio.sleep(30.02)  # the moment after a good answer: the worst for the next
        assert [verdict for _, verdict in peer.heard] == [Verdict(True)]
        peer.say, since = broken, loop.time()
        await asyncio.sleep(60)
        told, verdict = peer.heard[-1]
        assert verdict == Verdict(False, error)
        assert told - since < 14
        peer.say, since = well, loop.time()
        await asyncio.sleep(10)
        told, verdict = peer.heard[-1]
        assert verdict == Verdict(True)
        assert told - since < 4
    assert len(peer.heard) == 3


async def test_two_misses_are_no_verdict() -> None:
    peer = Peer(well)
    async with at_work(peer.probe.run()):
        await asyncio.sleep(1)
        peer.say = refuse
        await asyncio.sleep(6)
        peer.say = well
        await asyncio.sleep(30)
    assert [verdict.up for _, verdict in peer.heard] == [True]


async def test_a_credential_that_may_not_read_readyz_falls_back_once() -> None:
    async def only_version(path: str) -> Answer:
        return Answer(b"{}") if path == "/version" else Answer(b"{}", 403 if path == "/readyz" else 404)

    peer = Peer(only_version)
    async with at_work(peer.probe.run()):
        await asyncio.sleep(7)
    assert peer.paths == ["/readyz", "/livez", "/version", "/version", "/version"]
    assert peer.probe.verdict == Verdict(True)


async def test_a_credential_that_is_refused_is_a_failure() -> None:
    async def unauthorized(_: str) -> Answer:
        return Answer({"kind": "Status", "message": "Unauthorized", "reason": "Unauthorized"}, 401)

    peer = Peer(unauthorized)
    async with at_work(peer.probe.run()):
        await asyncio.sleep(10)
    assert peer.probe.verdict == Verdict(False, "/readyz: Unauthorized")


async def test_a_refusal_is_told_at_once_but_not_one_that_a_renewal_mends() -> None:
    answers = [401, 200]

    async def scripted(_: str) -> Answer:
        return Answer({"kind": "Status", "message": "Unauthorized"}, answers.pop(0) if len(answers) > 1 else answers[0])

    peer = Peer(scripted)
    async with at_work(peer.probe.run()):
        await asyncio.sleep(1)
        assert (peer.probe.refusal, peer.probe.verdict) == ("", Verdict(True))
        answers[:] = [401]
        await asyncio.sleep(3)
        assert (peer.probe.refusal, peer.probe.verdict) == ("Unauthorized", Verdict(True))  # no failure yet
        answers[:] = [200]
        await asyncio.sleep(3)
        assert peer.probe.refusal == ""


async def test_the_round_trip_is_smoothed() -> None:
    peer = Peer(well)
    async with at_work(peer.probe.run()):
        assert peer.probe.round_trip_s is None
        await asyncio.sleep(31)
        assert peer.probe.round_trip_s == pytest.approx(0.01, abs=0.001)

        async def slower(_: str) -> Answer:
            await asyncio.sleep(0.11)
            return Answer(b"ok")

        peer.say = slower
        await asyncio.sleep(3)
        assert peer.probe.round_trip_s == pytest.approx(0.03, abs=0.002)


async def test_a_slow_credential_is_told_but_never_given_up() -> None:
    peer = Peer(well, resolve_s=20)
    async with at_work(peer.probe.run()):
        await asyncio.sleep(15)
        assert peer.probe.verdict == Verdict(False, "no credential to ask with within 3.2 s")
        await asyncio.sleep(6)
        assert peer.probe.verdict == Verdict(True)


class Home:
    """An apiserver with one Lease, which says of each write when it came."""

    def __init__(self) -> None:
        self.lease: JsonDict | None = None
        self.written: list[float] = []
        self.reads = 0
        self.away = False

    async def answer(self, method: str, path: str, body: Any) -> Answer:
        if self.away:
            await asyncio.sleep(3600)
        if method == "GET":
            self.reads += 1
            return Answer(self.lease) if self.lease else Answer({"reason": "NotFound"}, 404)
        if method == "PUT" and self.lease is None:
            return Answer({"reason": "NotFound"}, 404)
        if method == "PUT" and body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:  # type: ignore[index]
            return Answer({"reason": "Conflict"}, 409)
        self.written.append(asyncio.get_running_loop().time())
        self.lease = {**body, "metadata": {**body["metadata"], "resourceVersion": str(len(self.written))}}
        return Answer(self.lease)

    def edit(self) -> None:
        """Somebody else's write."""
        assert self.lease
        self.lease["metadata"] |= {"resourceVersion": "edited", "labels": {"a": "b"}}


def lease_at(home: Home, uid: Callable[[], str], returned: Callable[[], None] = lambda: None) -> Lease:
    start = datetime(2026, 5, 1, tzinfo=UTC)

    def now() -> datetime:
        return start + timedelta(seconds=asyncio.get_running_loop().time())

    return Lease(Wire(home.answer), "edge", uid, now, returned)


async def test_the_lease_is_read_once_and_written_each_ten_seconds() -> None:
    home = Home()
    async with at_work(lease_at(home, lambda: "u1").run()):
        await asyncio.sleep(61)
    gaps = [after - before for before, after in zip(home.written, home.written[1:], strict=False)]
    assert len(gaps) == 6
    assert all(gap == pytest.approx(10) for gap in gaps)
    assert home.reads == 1
    assert home.lease
    assert home.lease["spec"] == {
        "holderIdentity": "edge",
        "leaseDurationSeconds": 40,
        "renewTime": "2026-05-01T00:01:00.000000Z",
    }


async def test_a_lease_edited_or_deleted_by_others_is_kept_all_the_same() -> None:
    home = Home()
    async with at_work(lease_at(home, lambda: "u1").run()):
        await asyncio.sleep(1)
        home.edit()
        await asyncio.sleep(10)
        assert home.lease
        assert home.lease["metadata"]["labels"] == {"a": "b"}
        assert len(home.written) == 2
        home.lease = None
        await asyncio.sleep(10)
    assert home.lease
    assert len(home.written) == 3


async def test_there_is_no_lease_without_a_node_and_it_follows_the_node() -> None:
    home, uid = Home(), [""]
    async with at_work(lease_at(home, lambda: uid[0]).run()):
        await asyncio.sleep(30)
        assert home.lease is None
        for uid[0] in ("u1", "u2"):
            await asyncio.sleep(11)
            assert home.lease
            assert home.lease["metadata"]["ownerReferences"][0]["uid"] == uid[0]


async def test_home_away_for_half_a_minute_does_not_outlast_the_lease() -> None:
    home = Home()
    async with at_work(lease_at(home, lambda: "u1").run()):
        await asyncio.sleep(21)
        home.away = True
        await asyncio.sleep(20)
        home.away = False
        await asyncio.sleep(20)
    assert max(after - before for before, after in zip(home.written, home.written[1:], strict=False)) < 40


async def test_homes_return_is_told_once_and_a_conflict_is_none() -> None:
    home, returns = Home(), []
    loop = asyncio.get_running_loop()
    async with at_work(lease_at(home, lambda: "u1", lambda: returns.append(loop.time())).run()):
        await asyncio.sleep(15)
        home.edit()
        await asyncio.sleep(20)
        assert returns == []
        home.away = True
        await asyncio.sleep(60)
        home.away = False
        healed = loop.time()
        await asyncio.sleep(60)
    assert len(returns) == 1
    assert returns[0] - healed < 16  # one try that hangs, and one pause
