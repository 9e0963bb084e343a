"""kopf in its thread, against an apiserver's bytes: what it tells, what it never writes, and that it always ends."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from tests.apiserver import Answer, FixedCredentials, Hang, Request, answer, failure, line, serving, soon, stream
from tests.loop.wire import at_work
from vnode.kube.client import Client
from vnode.kube.watch import Applied, Deleted, Event, Listed
from vnode.peers.source import PeerSource
from vnode.telemetry.metrics import Metrics

GROUP = "/apis/vnode.dev/v1alpha1"
CORE = {
    "kind": "APIResourceList",
    "groupVersion": "v1",
    "resources": [
        {"name": "namespaces", "singularName": "", "namespaced": False, "kind": "Namespace", "verbs": ["list", "watch"]}
    ],
}
RESOURCES = {
    "kind": "APIResourceList",
    "groupVersion": "vnode.dev/v1alpha1",
    "resources": [
        {
            "name": "peers",
            "singularName": "peer",
            "namespaced": False,
            "kind": "Peer",
            "verbs": ["list", "watch", "patch"],
        }
    ],
}
GROUPS = {
    "kind": "APIGroupList",
    "groups": [
        {
            "name": "vnode.dev",
            "versions": [{"groupVersion": "vnode.dev/v1alpha1", "version": "v1alpha1"}],
            "preferredVersion": {"groupVersion": "vnode.dev/v1alpha1", "version": "v1alpha1"},
        }
    ],
}


def peer(name: str, version: int) -> dict[str, Any]:
    metadata = {"name": name, "uid": name, "resourceVersion": str(version), "generation": 1}
    return {
        "apiVersion": "vnode.dev/v1alpha1",
        "kind": "Peer",
        "metadata": metadata,
        "spec": {"secretRef": {"name": "x"}},
    }


class Apiserver:
    """Discovery, a list of one Peer, and watches that `watches` has; then one that is silent."""

    def __init__(self, *watches: Answer) -> None:
        self.watches = list(watches)
        self.written: list[Request] = []
        self.there = True

    def __call__(self, request: Request) -> Answer:
        if request.method != "GET":
            self.written.append(request)
        if request.path == f"{GROUP}/peers" and not self.there:
            return failure(404, "NotFound")
        if request.path == f"{GROUP}/peers" and "watch" in request.params:
            return self.watches.pop(0) if self.watches else stream(Hang)
        peers = {"kind": "PeerList", "metadata": {"resourceVersion": "10"}, "items": [peer("one", 5)]}
        found = {
            "/api": {"kind": "APIVersions", "versions": ["v1"]},
            "/apis": GROUPS,
            "/api/v1": CORE,
            GROUP: RESOURCES,
            f"{GROUP}/peers": peers,
        }
        return answer(found[request.path], Content_Type="application/json")


def shown(events: list[Event]) -> list[tuple[str, str]]:
    told = []
    for event in events:
        if isinstance(event, Listed):
            told += [("listed", item.meta.name) for item in event.items]
        else:
            told.append((type(event).__name__.lower(), event.item.meta.name))
    return told


async def follow(server: Apiserver, until: Callable[[list[Event]], bool]) -> tuple[list[Event], FixedCredentials]:
    """What is told until it is enough; kopf's thread has ended by then."""
    events: list[Event] = []
    async with serving(server) as wire:
        credentials = FixedCredentials(wire.url)
        client = Client(credentials, "home", Metrics())
        try:
            async with at_work(PeerSource(client, credentials, events.append).run()):
                await soon(lambda: until(events), 20)
            await soon(lambda: "kopf" not in {thread.name for thread in threading.enumerate()})
        finally:
            await client.close()
    return events, credentials


async def test_what_is_there_and_what_changes_is_told_and_nothing_is_written() -> None:
    server = Apiserver(
        stream(
            line("MODIFIED", peer("one", 11)), line("ADDED", peer("two", 12)), line("DELETED", peer("one", 13)), Hang
        )
    )
    events, _ = await follow(server, lambda events: any(isinstance(event, Deleted) for event in events))
    told = shown(events)
    assert told[0] == ("listed", "one")
    assert {("applied", "one"), ("applied", "two"), ("deleted", "one")} <= set(told)
    last = [event for event in events if isinstance(event, Applied) and event.item.meta.name == "one"][-1]
    assert last.item.version == 11
    assert last.item.spec() == {"secretRef": {"name": "x"}}
    assert not server.written


async def test_after_an_error_that_ends_kopf_it_is_started_again_with_a_list() -> None:
    broken = stream(line("ERROR", {"kind": "Status", "code": 500, "message": "etcd is away"}), Hang)
    events, _ = await follow(Apiserver(broken), lambda events: sum(isinstance(event, Listed) for event in events) == 2)
    assert shown(events).count(("listed", "one")) == 2


async def test_a_refused_credential_is_renewed() -> None:
    server = Apiserver(failure(401, "Unauthorized"), stream(line("ADDED", peer("two", 12)), Hang))
    events, credentials = await follow(server, lambda events: ("applied", "two") in shown(events))
    assert credentials.refused == 1
    assert events


async def test_without_the_kind_it_waits_for_it() -> None:
    server = Apiserver()
    server.there = False

    def appears(events: list[Event]) -> bool:
        server.there = server.there or asyncio.get_running_loop().time() > started + 0.5
        return bool(events)

    started = asyncio.get_running_loop().time()
    events, _ = await follow(server, appears)
    assert shown(events)[0] == ("listed", "one")
