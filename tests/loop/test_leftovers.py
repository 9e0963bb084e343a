"""peers.leftovers and peers.departure: whose Pods and Node are touched at home when a Peer goes."""

import asyncio
from typing import Any, cast

import pytest

from tests.builders import mirror_of, pod
from tests.loop.wire import Answer, Wire, at_work
from vnode import names
from vnode.kube.client import PODS
from vnode.kube.objects import JsonDict
from vnode.kube.watch import Source
from vnode.node.manifest import Identity
from vnode.peers.departure import Departure
from vnode.peers.fleet import Fleet
from vnode.peers.home import Home
from vnode.peers.leftovers import Leftovers
from vnode.policy.route import Route
from vnode.reflect.controller import Reflector
from vnode.reflect.namespaces import RemoteNamespaces
from vnode.runtime.informer import Informer
from vnode.runtime.store import Store
from vnode.telemetry.metrics import Metrics

pytestmark = pytest.mark.looptime
NODE = "/api/v1/nodes/edge"
ROUTE = Route("home", "uid-home", "edge", lambda namespace: f"{namespace}-home")


class World:
    """A Pod at home and its mirror, which goes when either is deleted; `owner` has the Node, "": there is none."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.asked: list[str] = []
        client = Wire(self._at_home)
        self.home = cast(Home, _Home(client))
        peer = Wire(self._at_peer)
        self.local = Informer("home-pods", Source(client, PODS))
        self.remote = Informer("peer-pods", Source(peer, PODS))
        self.pod = pod()
        self.mirror = mirror_of(self.pod)
        self.local.learn(self.pod)
        self.remote.learn(self.mirror)
        namespaces = RemoteNamespaces(peer, ROUTE, Store())
        reflector = Reflector(
            home=client,
            peer=peer,
            route=ROUTE,
            namespaces=namespaces,
            local={},
            remote={},
            arrived=lambda _: None,
            metrics=Metrics(),
        )
        self.leftovers = Leftovers(
            home=self.home,
            peer=peer,
            node="edge",
            local=self.local,
            remote=self.remote,
            copies=[],
            reflector=reflector,
            namespaces=namespaces,
        )

    async def _at_home(self, method: str, path: str, _: Any) -> Answer:
        if path == NODE:
            meta = {"name": "edge", "uid": "n", "annotations": {names.CLUSTER_UID: self.owner}}
            return Answer({"metadata": meta}) if self.owner else Answer({}, 404)
        return self._deleted("home", method, path)

    async def _at_peer(self, method: str, path: str, _: Any) -> Answer:
        if method == "GET":
            return Answer({"metadata": {"resourceVersion": "1"}, "items": []})
        return self._deleted("peer", method, path)

    def _deleted(self, side: str, method: str, path: str) -> Answer:
        self.asked.append(f"{side} {method} {path}")
        self.remote.forget(self.mirror.key, self.mirror.uid)
        return Answer({})


class _Home:
    def __init__(self, client: Wire) -> None:
        self.client = client
        self.identity = Identity("home", "uid-home")


@pytest.mark.parametrize("owner", ["", "uid-home", "somebody"])
async def test_pods_at_home_are_deleted_unless_somebody_else_has_the_node_by_now(owner: str) -> None:
    world = World(owner)
    async with asyncio.timeout(5):
        await world.leftovers.clear(lambda _: None)
    side, key = ("peer", world.mirror.key) if owner == "somebody" else ("home", world.pod.key)
    assert world.asked == [f"{side} DELETE /api/v1/namespaces/{key.namespace}/pods/{key.name}"]


@pytest.mark.parametrize("abandoned_s", [None, 0.0])
@pytest.mark.parametrize("drains", [True, False])
async def test_a_node_that_another_peer_has_is_neither_drained_nor_removed(
    drains: bool, abandoned_s: float | None
) -> None:
    writes: list[str] = []

    async def answer(method: str, path: str, _: Any) -> Answer:
        meta: JsonDict = {"name": "edge", "uid": "n", "annotations": {names.CLUSTER_UID: "uid-home"}}
        if method != "GET":
            writes.append(f"{method} {path}")
        return Answer({"metadata": meta, "items": []})

    home = cast(Home, _Home(Wire(answer)))
    departure = Departure(
        "b", "edge", None, home, Fleet(Metrics()), drains=drains, reached=lambda: False, changed=lambda: None
    )
    departure.abandon_in(abandoned_s)
    async with at_work(departure.run()):
        await asyncio.sleep(5)
        assert departure.done
    assert (f"DELETE {NODE}" in writes) == drains
    assert drains or not writes
