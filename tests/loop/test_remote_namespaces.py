"""reflect.namespaces: which namespaces at a peer are ever deleted, and how often it is said of one that it is left."""

import logging
from collections.abc import Callable
from typing import Any

import pytest

from tests.loop.wire import Answer, Wire
from vnode import names
from vnode.kube.objects import JsonDict, from_dict
from vnode.kube.watch import Listed
from vnode.policy.route import Route
from vnode.reflect.namespaces import RemoteNamespaces
from vnode.runtime.store import Store

pytestmark = pytest.mark.looptime
ROUTE = Route("home", "uid-home", "edge", lambda namespace: f"{namespace}-home")
ROOT = "/api/v1/namespaces"


class Peer:
    """Namespaces at a peer, and how many Pods of others are in each."""

    def __init__(self) -> None:
        self.spaces: dict[str, JsonDict] = {}
        self.others: dict[str, int] = {}
        self.wire = Wire(self._answer)

    def put(self, name: str, **annotations: str) -> JsonDict:
        """A namespace with our three labels."""
        meta = {"name": name, "uid": f"u-{name}", "resourceVersion": "5", "labels": ROUTE.labels}
        space = self.spaces[name] = {"metadata": meta | {"annotations": annotations}}
        return space

    async def _answer(self, method: str, path: str, body: Any) -> Answer:
        name, _, pods = path.removeprefix(ROOT).removeprefix("/").partition("/")
        if pods:
            pod = {"metadata": {"name": "theirs", "namespace": name}}
            return Answer({"metadata": {"resourceVersion": "9"}, "items": [pod] * self.others.get(name, 0)})
        match method:
            case "POST":
                body["metadata"] |= {"uid": "u-new", "resourceVersion": "5"}
                self.spaces[body["metadata"]["name"]] = body
                return Answer(body, 201)
            case "DELETE":
                return Answer(self.spaces.pop(name))
            case _ if not name:
                return Answer({"metadata": {"resourceVersion": "9"}, "items": list(self.spaces.values())})
            case _:
                return Answer(self.spaces[name]) if name in self.spaces else Answer({}, 404)


def remote(peer: Peer, *local: str) -> RemoteNamespaces:
    """As of a home with these namespaces."""
    store = Store()
    store.apply(Listed([from_dict({"metadata": {"name": name, "uid": name}}) for name in local], 1))
    return RemoteNamespaces(peer.wire, ROUTE, store)


Clearing = Callable[[RemoteNamespaces], Any]
clearings = pytest.mark.parametrize("clear", [RemoteNamespaces.sweep, RemoteNamespaces.remove_all])


@clearings
async def test_what_was_made_here_goes(clear: Clearing) -> None:
    peer = Peer()
    await remote(peer).ensure("shop")
    assert set(peer.spaces) == {"shop-home"}
    await clear(remote(peer))
    assert peer.spaces == {}


@clearings
@pytest.mark.parametrize(
    "annotations",
    [
        {},
        {names.ORIGIN_NAMESPACE: "shop"},
        {names.CREATED: "true"},
        {names.CREATED: "true", names.ORIGIN_NAMESPACE: ""},
    ],
)
async def test_what_was_handed_over_stays(clear: Clearing, annotations: dict[str, str]) -> None:
    peer = Peer()
    peer.put("shop-home", **annotations)
    await clear(remote(peer))
    assert set(peer.spaces) == {"shop-home"}


async def test_a_handed_over_namespace_is_used() -> None:
    peer = Peer()
    peer.put("shop-home", **{names.ORIGIN_NAMESPACE: "shop"})
    await remote(peer, "shop").ensure("shop")
    assert names.CREATED not in peer.spaces["shop-home"]["metadata"]["annotations"]


async def test_the_namespace_of_a_living_home_namespace_is_not_swept() -> None:
    peer = Peer()
    namespaces = remote(peer, "shop")
    await namespaces.ensure("shop")
    await namespaces.sweep()
    assert set(peer.spaces) == {"shop-home"}


async def test_that_a_namespace_is_left_is_said_once_until_it_changes(caplog: pytest.LogCaptureFixture) -> None:
    peer = Peer()
    namespaces = remote(peer)
    made = peer.put("shop-home", **{names.ORIGIN_NAMESPACE: "shop", names.CREATED: "true"})
    peer.put("handed", **{names.ORIGIN_NAMESPACE: "shop"})
    peer.others["shop-home"] = 1
    caplog.set_level("INFO")

    def told() -> list[tuple[int, str]]:
        records = [record for record in caplog.records if record.message == "namespace left at the peer"]
        caplog.clear()
        return sorted((record.levelno, vars(record)["remote"]) for record in records)

    for _ in range(3):
        await namespaces.sweep()
    assert told() == [(logging.INFO, "handed"), (logging.WARNING, "shop-home")]
    made["metadata"]["resourceVersion"] = "6"
    await namespaces.sweep()
    assert told() == [(logging.WARNING, "shop-home")]
    peer.others.clear()
    await namespaces.sweep()
    assert set(peer.spaces) == {"handed"}
    assert told() == []
