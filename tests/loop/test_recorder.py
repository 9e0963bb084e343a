"""runtime.recorder: an Event is what `kubectl describe` shows; the same one is counted, and none blocks."""

import asyncio
from datetime import datetime, timedelta

import pytest

from tests.apiserver import Answer, Server, answer, failure, talking
from tests.builders import NOW
from vnode.kube.client import MERGE_PATCH, Client
from vnode.kube.objects import Key
from vnode.runtime.recorder import Recorder, Regarding

pytestmark = pytest.mark.looptime
WEB = Regarding("Pod", Key("shop", "web"), "u1")


class Clock:
    """The injected `now`, moved by hand."""

    def __init__(self) -> None:
        self.moment = NOW

    def __call__(self) -> datetime:
        return self.moment

    def forward(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


async def recorded(client: Client, clock: Clock, *events: tuple[Regarding, str, str]) -> Recorder:
    """A recorder that has been given these events and the time to write them."""
    recorder = Recorder(client, "edge", clock)
    for regarding, reason, message in events:
        recorder.event(regarding, "Warning", reason, message)
    await written(recorder)
    return recorder


async def written(recorder: Recorder) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(100):
            await recorder.run()


def asked(server: Server) -> list[str]:
    return [request.method for request in server.requests]


async def test_an_event_says_what_happened_to_whom() -> None:
    async with talking([answer({})]) as (client, server):
        await recorded(client, Clock(), (WEB, "UnsupportedField", "spec.x: no"))
    (request,) = server.requests
    assert request.path == "/api/v1/namespaces/shop/events"
    event = request.json
    assert event["involvedObject"] == {
        "apiVersion": "v1",
        "kind": "Pod",
        "namespace": "shop",
        "name": "web",
        "uid": "u1",
    }
    assert (event["type"], event["reason"], event["message"]) == ("Warning", "UnsupportedField", "spec.x: no")
    assert event["source"] == {"component": "vnode", "host": "edge"}
    assert (event["firstTimestamp"], event["lastTimestamp"], event["count"]) == ("2026-05-01T12:00:00Z",) * 2 + (1,)
    assert event["metadata"]["name"].startswith("web.")
    assert event["metadata"]["namespace"] == "shop"


async def test_an_event_about_a_node_lies_in_the_default_namespace() -> None:
    async with talking([answer({})]) as (client, server):
        await recorded(client, Clock(), (Regarding("Node", Key("", "edge"), "n1"), "PeerReachable", "back"))
    assert server.requests[0].path == "/api/v1/namespaces/default/events"


async def test_the_same_event_is_written_once_a_minute_and_then_counted() -> None:
    clock = Clock()
    async with talking([answer({}), answer({})]) as (client, server):
        recorder = await recorded(client, clock, *[(WEB, "R", "m")] * 5)
        clock.forward(59)
        recorder.event(WEB, "Warning", "R", "m")
        clock.forward(2)
        recorder.event(WEB, "Warning", "R", "m")
        await written(recorder)
    create, patch = server.requests
    assert (create.method, patch.method) == ("POST", "PATCH")
    assert patch.headers["content-type"] == MERGE_PATCH
    assert patch.path == f"/api/v1/namespaces/shop/events/{create.json['metadata']['name']}"
    assert patch.json == {"count": 2, "lastTimestamp": "2026-05-01T12:01:01Z"}


async def test_events_that_differ_are_each_written() -> None:
    other = Regarding("Pod", Key("shop", "web"), "u2")
    events = [(WEB, "R", "m"), (WEB, "R", "n"), (WEB, "S", "m"), (other, "R", "m")]
    async with talking([answer({})] * 4) as (client, server):
        await recorded(client, Clock(), *events)
    assert asked(server) == ["POST"] * 4
    assert len({request.json["metadata"]["name"] for request in server.requests}) == 4


async def test_an_event_that_has_expired_is_written_anew() -> None:
    clock = Clock()
    async with talking([answer({}), failure(404), answer({})]) as (client, server):
        recorder = await recorded(client, clock, (WEB, "R", "m"))
        clock.forward(61)
        recorder.event(WEB, "Warning", "R", "m")
        await written(recorder)
    assert asked(server) == ["POST", "PATCH", "POST"]


async def test_an_event_of_an_earlier_run_of_ours_is_freshened() -> None:
    async with talking([failure(409, "AlreadyExists"), answer({})]) as (client, server):
        await recorded(client, Clock(), (WEB, "R", "m"))
    assert asked(server) == ["POST", "PATCH"]
    assert server.requests[1].json == {"lastTimestamp": "2026-05-01T12:00:00Z"}


@pytest.mark.parametrize("refusal", [failure(403), failure(500), failure(404), failure(422)])
async def test_an_event_that_cannot_be_written_holds_up_no_other(refusal: Answer) -> None:
    async with talking([refusal, answer({})]) as (client, server):
        await recorded(client, Clock(), (WEB, "R", "m"), (WEB, "R", "n"))
    assert asked(server) == ["POST", "POST"]


async def test_a_flood_is_bounded_and_told(caplog: pytest.LogCaptureFixture) -> None:
    async with talking([]) as (client, _):
        recorder = Recorder(client, "edge", Clock())
        for number in range(1005):
            recorder.event(WEB, "Warning", "R", f"m{number}")
    assert [record.message for record in caplog.records].count("event dropped") == 5


async def test_long_words_and_names_are_cut_to_what_the_api_takes() -> None:
    long = Regarding("Pod", Key("shop", "p" * 253), "u1")
    async with talking([answer({})]) as (client, server):
        await recorded(client, Clock(), (long, "R", "x" * 5000))
    event = server.requests[0].json
    assert len(event["message"]) == 1024
    assert len(event["metadata"]["name"]) <= 253
    assert event["involvedObject"]["name"] == "p" * 253
