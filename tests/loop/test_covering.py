"""runtime.covering: what is followed where all namespaces may be read, and where each needs a right of its own."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from tests.apiserver import soon
from tests.builders import raw_pod
from tests.loop.wire import Answer, Wire, at_work
from vnode.errors import Rejected, Unavailable
from vnode.kube.client import SECRETS
from vnode.kube.objects import Key
from vnode.kube.watch import Source
from vnode.runtime.covering import REFUSED_AGAIN_S, CoveringInformer

pytestmark = pytest.mark.looptime


class Secrets:
    """An apiserver's Secrets, readable in `open_to` ("": in all namespaces)."""

    def __init__(self, *open_to: str) -> None:
        self.open_to = set(open_to)
        self.asked: Counter[str] = Counter()
        self.answers: list[bool | Exception] = []
        wire = Wire(self._answer)
        self.gone: set[str] = set()
        source = Source(wire, SECRETS, metadata_only=True)
        self.informer = CoveringInformer("secrets", source, self._everywhere, lambda name: name not in self.gone)

    async def _everywhere(self) -> bool:
        if self.answers and isinstance(answer := self.answers.pop(0), Exception):
            raise answer
        return "" in self.open_to

    async def _answer(self, _: str, path: str, __: Any) -> Answer:
        self.asked[path] += 1
        head, watching, _ = path.partition("&watch")
        namespace = head.removeprefix("/api/v1/").removesuffix("secrets").removeprefix("namespaces/").rstrip("/")
        if namespace not in self.open_to:
            return Answer({"message": f"secrets is forbidden in {namespace}"}, 403)
        if watching:
            return Answer(more=asyncio.Queue())
        items = [raw_pod("key", namespace or "any", uid=f"u-{namespace}")]
        return Answer({"metadata": {"resourceVersion": "7"}, "items": items})


async def test_one_watch_serves_all_namespaces_where_that_is_allowed() -> None:
    world = Secrets("")
    async with at_work(world.informer.run()):
        await world.informer.cover("shop")
        await world.informer.cover("blog")
        await soon(lambda: len(world.asked) == 2)
        assert world.asked == {"/api/v1/secrets": 1, "/api/v1/secrets&watch": 1}


async def test_nothing_is_read_before_it_is_needed_and_nothing_beside_it() -> None:
    world = Secrets("shop", "blog")
    async with at_work(world.informer.run()):
        await world.informer.synced()
        await asyncio.sleep(60)
        assert not world.asked
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(world.informer.cover("shop"))
        assert world.informer.store.get(Key("shop", "key")) is not None
        await soon(lambda: len(world.asked) == 2)
        root = "/api/v1/namespaces/shop/secrets"
        assert world.asked == {root: 1, f"{root}&watch": 1}


async def test_a_refusal_is_told_and_a_right_given_later_is_found() -> None:
    world = Secrets()
    async with at_work(world.informer.run()):
        for _ in range(3):
            with pytest.raises(Rejected, match="forbidden in shop"):
                await world.informer.cover("shop")
        assert world.asked == {"/api/v1/namespaces/shop/secrets": 1}
        world.open_to.add("shop")
        await asyncio.sleep(REFUSED_AGAIN_S + 1)
        await world.informer.cover("shop")
        assert world.informer.store.get(Key("shop", "key")) is not None


async def test_a_namespace_that_is_gone_is_followed_no_longer() -> None:
    world = Secrets("shop", "blog")
    gone: list[Key] = []
    async with at_work(world.informer.run()):
        await world.informer.cover("shop")
        await world.informer.cover("blog")
        await soon(lambda: len(world.asked) == 4)
        world.informer.on_change(lambda key, _, now: gone.append(key) if now is None else None)
        world.informer.uncover("shop")
        world.informer.uncover("never-seen")
        assert gone == [Key("shop", "key")]
        asked = world.asked.total()
        await asyncio.sleep(REFUSED_AGAIN_S * 3)
        assert world.asked.total() == asked
        world.gone.add("shop")
        await world.informer.cover("shop")  # by one who has not heard yet
        await asyncio.sleep(REFUSED_AGAIN_S)
        assert world.asked.total() == asked
        world.gone.clear()
        await world.informer.cover("shop")  # made anew
        assert world.informer.store.get(Key("shop", "key")) is not None


async def test_after_an_outage_each_namespace_is_listed_anew() -> None:
    world = Secrets("shop", "blog")
    async with at_work(world.informer.run()):
        for name in ("shop", "blog"):
            await world.informer.cover(name)
        with pytest.raises(Rejected):
            await world.informer.cover("closed")
        await soon(lambda: world.asked.total() == 5)
        world.informer.refresh()
        assert not world.informer.current
        await soon(lambda: world.informer.current)
        await soon(lambda: world.asked.total() == 10)
        assert {path: times for path, times in world.asked.items() if times != 2} == {}


async def test_a_namespace_that_goes_in_an_outage_keeps_nothing_in_doubt() -> None:
    world = Secrets("shop", "blog")
    async with at_work(world.informer.run()):
        for name in ("shop", "blog"):
            await world.informer.cover(name)
        world.open_to.clear()  # the right to read the other one is taken away
        world.informer.refresh()
        world.informer.uncover("shop")
        assert not world.informer.current
        await soon(lambda: world.informer.current)


async def test_a_server_that_does_not_answer_what_we_may_is_asked_again() -> None:
    world = Secrets("")
    world.answers = [Unavailable("away"), Unavailable("away")]
    async with at_work(world.informer.run()):
        await world.informer.cover("shop")
        assert not world.answers
        assert "/api/v1/secrets" in world.asked
