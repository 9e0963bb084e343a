"""Verdicts of the kubelet's door in virtual time: kept for their time, asked for once, failures never kept."""

import asyncio

import pytest

from vnode.errors import Unavailable
from vnode.kubelet.auth import Verdicts

pytestmark = pytest.mark.looptime


class Apiserver:
    """Answers after a second, and counts."""

    def __init__(self) -> None:
        self.asked = 0
        self.broken = False
        self.allowed = True

    async def ask(self) -> bool:
        self.asked += 1
        await asyncio.sleep(1)
        if self.broken:
            raise Unavailable("down")
        return self.allowed


def verdicts() -> Verdicts[bool]:
    return Verdicts(lambda allowed: 300.0 if allowed else 30.0)


@pytest.mark.parametrize(("allowed", "life_s"), [(True, 300), (False, 30)])
async def test_a_verdict_lives_as_long_as_the_kubelets(allowed: bool, life_s: int) -> None:
    apiserver, kept = Apiserver(), verdicts()
    apiserver.allowed = allowed
    assert await kept.get(b"a", apiserver.ask) is allowed
    await asyncio.sleep(life_s - 1)
    assert await kept.get(b"a", apiserver.ask) is allowed
    assert apiserver.asked == 1
    await asyncio.sleep(2)
    apiserver.allowed = not allowed
    assert await kept.get(b"a", apiserver.ask) is not allowed
    assert apiserver.asked == 2


async def test_a_hundred_who_ask_at_once_cost_one_review() -> None:
    apiserver, kept = Apiserver(), verdicts()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(kept.get(b"a", apiserver.ask)) for _ in range(100)]
        other = group.create_task(kept.get(b"b", apiserver.ask))
    assert all(task.result() for task in [*tasks, other])
    assert apiserver.asked == 2


async def test_the_next_waiter_asks_when_the_asker_leaves() -> None:
    apiserver, kept = Apiserver(), verdicts()
    async with asyncio.TaskGroup() as group:
        first = group.create_task(kept.get(b"a", apiserver.ask))
        second = group.create_task(kept.get(b"a", apiserver.ask))
        await asyncio.sleep(0.5)
        first.cancel()
    assert second.result() is True
    assert apiserver.asked == 2


async def test_a_failure_is_told_and_not_kept() -> None:
    apiserver, kept = Apiserver(), verdicts()
    apiserver.broken = True
    with pytest.raises(Unavailable):
        await kept.get(b"a", apiserver.ask)
    apiserver.broken = False
    assert await kept.get(b"a", apiserver.ask) is True
