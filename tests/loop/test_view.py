"""What a peer offers, in virtual time: large changes at once, small ones after a while."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.loop.wire import Answer, Wire, at_work
from vnode.config import PeerSpec
from vnode.errors import Rejected
from vnode.kube.client import Client
from vnode.node.view import PeerView, nodes_informer, others_informer
from vnode.runtime.informer import Informer

pytestmark = pytest.mark.looptime


class Peer:
    """A peer of one node of 100 cpu, at which Pods come and go."""

    def __init__(self) -> None:
        self.pods: asyncio.Queue[Any] = asyncio.Queue()
        self.version = 1
        self.wire = Wire(self._answer)

    def put(self, name: str, cpu: str, kind: str = "ADDED") -> None:
        """A Pod that asks for `cpu` comes, or goes (DELETED)."""
        self.version += 1
        metadata = {"name": name, "namespace": "x", "uid": name, "resourceVersion": str(self.version)}
        spec = {"nodeName": "n1", "containers": [{"resources": {"requests": {"cpu": cpu}}}]}
        self.pods.put_nowait({"type": kind, "object": {"metadata": metadata, "spec": spec, "status": {}}})

    async def _answer(self, method: str, path: str, _: Any) -> Answer:
        nowhere: asyncio.Queue[Any] = asyncio.Queue()
        match path.removeprefix("/api/v1/"):
            case "nodes":
                resources = {"cpu": "100", "memory": "1Gi", "pods": "1000", "ephemeral-storage": "1Gi"}
                ready = [{"type": "Ready", "status": "True"}]
                status = {"capacity": resources, "allocatable": resources, "conditions": ready}
                node = {"metadata": {"name": "n1", "uid": "n1", "resourceVersion": "1"}, "spec": {}, "status": status}
                return Answer({"metadata": {"resourceVersion": "1"}, "items": [node]})
            case "pods":
                return Answer({"metadata": {"resourceVersion": "1"}, "items": []})
            case "pods&watch":
                return Answer(more=self.pods)
            case _:
                return Answer(more=nowhere)


async def test_large_changes_show_at_once_and_small_ones_within_half_a_minute() -> None:
    peer, told = Peer(), []
    nodes, others = nodes_informer(peer.wire), others_informer(peer.wire, "our-uid")
    view = PeerView(peer.wire, PeerSpec("edge", ""), nodes, others, lambda: told.append(True))

    def cpu() -> str:
        assert view.capacity
        return view.capacity.allocatable["cpu"]

    assert view.sum_up() is None
    assert view.capacity is None, "nothing is offered before all is known"
    async with at_work(nodes.run(), others.run()):
        await view.synced()
        assert view.sum_up() is None
        assert cpu() == "100"
        peer.put("large", "5")
        await asyncio.sleep(1)
        assert told
        assert view.sum_up() is None
        assert cpu() == "95"

        peer.put("small", "500m")
        await asyncio.sleep(1)
        assert view.sum_up() == pytest.approx(30)
        assert cpu() == "95"
        await asyncio.sleep(20)
        assert view.sum_up() == pytest.approx(10)
        await asyncio.sleep(10)
        assert view.sum_up() is None
        assert cpu() == "94500m"

        peer.put("brief", "500m")
        await asyncio.sleep(1)
        assert view.sum_up() == pytest.approx(30)
        peer.put("brief", "500m", "DELETED")
        await asyncio.sleep(1)
        assert view.sum_up() is None, "what came and went is not told"
        peer.put("large", "5", "DELETED")
        await asyncio.sleep(1)
        assert view.sum_up() is None
        assert cpu() == "99500m"


@pytest.mark.parametrize("made", [nodes_informer, lambda peer: others_informer(peer, "our-uid")])
async def test_a_peer_that_refuses_once_it_is_back_ends_the_session(made: Callable[[Client], Informer]) -> None:
    asked: list[int] = []

    async def answer(*_: Any) -> Answer:
        asked.append([503, 503, 401][len(asked)] if len(asked) < 3 else 403)
        return Answer({"message": "no"}, asked[-1])

    async with asyncio.timeout(60):
        with pytest.raises(ExceptionGroup) as ended:
            await made(Wire(answer)).run()
    assert ended.group_contains(Rejected)
    assert asked == [503, 503, 401, 403]
