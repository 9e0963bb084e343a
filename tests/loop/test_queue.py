"""runtime.queue: each key once, never with two workers, nothing given up, every delay as long as it should be."""

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vnode.runtime.queue import WorkQueue

pytestmark = pytest.mark.looptime


async def taken(queue: WorkQueue[str]) -> str:
    async with asyncio.timeout(10_000):
        return await queue.get()


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_keys_come_in_their_order_and_each_once() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for key in "abab":
        queue.add(key)
    assert len(queue) == 2
    assert [await taken(queue), await taken(queue)] == ["a", "b"]
    assert len(queue) == 0


async def test_a_key_added_while_it_is_worked_on_comes_back_after() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    await taken(queue)
    queue.add("a")
    queue.add("a")
    assert len(queue) == 0
    queue.done("a")
    assert await taken(queue) == "a"
    queue.done("a")
    assert len(queue) == 0


async def test_a_later_look_comes_after_its_delay() -> None:
    queue: WorkQueue[str] = WorkQueue()
    started = now()
    queue.add_after("a", 7)
    assert await taken(queue) == "a"
    assert now() - started == pytest.approx(7)


async def test_of_two_appointments_the_earlier_stands() -> None:
    queue: WorkQueue[str] = WorkQueue()
    started = now()
    for delay in (9, 4, 6):
        queue.add_after("a", delay)
    await taken(queue)
    assert now() - started == pytest.approx(4)
    queue.done("a")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(100):
            await queue.get()


async def test_a_key_that_is_added_needs_no_appointment_any_more() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 5)
    queue.add("a")
    queue.add_after("a", 1)
    await taken(queue)
    queue.done("a")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(100):
            await queue.get()


async def test_an_appointment_made_while_working_stands_after() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    await taken(queue)
    started = now()
    queue.add_after("a", 3)
    queue.done("a")
    await taken(queue)
    assert now() - started == pytest.approx(3)


async def test_delays_double_to_the_cap_and_no_failure_is_the_last() -> None:
    queue: WorkQueue[str] = WorkQueue(base_s=0.05, cap_s=30)
    delays = []
    for _ in range(3000):
        delays.append(queue.retry("a"))
        queue.add("a")
        await taken(queue)
        queue.done("a")
    for tries, delay in enumerate(delays):
        whole = min(30, 0.05 * 2 ** min(tries, 40))
        assert 0.7 * whole <= delay <= whole


async def test_success_makes_the_next_failure_a_first_one() -> None:
    queue: WorkQueue[str] = WorkQueue(base_s=1)
    for _ in range(5):
        queue.retry("a")
    queue.forget("a")
    assert queue.retry("a") <= 1


async def test_a_failure_waits_at_least_as_long_as_the_server_wishes() -> None:
    queue: WorkQueue[str] = WorkQueue()
    started = now()
    assert queue.retry("a", at_least_s=12) == 12
    await taken(queue)
    assert now() - started == pytest.approx(12)


async def test_hurrying_brings_every_appointment_forward() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 20)
    queue.add_after("b", 30)
    started = now()
    queue.hurry()
    assert {await taken(queue), await taken(queue)} == {"a", "b"}
    assert now() == started


async def test_a_closed_queue_keeps_no_appointments() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 5)
    queue.close()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(100):
            await queue.get()


async def test_a_worker_cancelled_while_waiting_takes_no_key_with_it() -> None:
    queue: WorkQueue[str] = WorkQueue()
    waiting = asyncio.get_running_loop().create_task(queue.get())
    await asyncio.sleep(0)
    waiting.cancel()
    queue.add("a")
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await taken(queue) == "a"


moves = st.lists(
    st.tuples(st.sampled_from(["add", "after", "retry", "hurry", "wait"]), st.sampled_from("abc")), max_size=40
)


@given(moves, st.integers(1, 4))
def test_no_two_workers_hold_one_key_and_the_last_word_is_always_heard(
    taken_moves: list[tuple[str, str]], workers: int
) -> None:
    import looptime

    async def scenario() -> None:
        queue: WorkQueue[str] = WorkQueue()
        busy: Counter[str] = Counter()
        said: Counter[str] = Counter()  # what a look has to see
        seen: Counter[str] = Counter()

        async def work() -> None:
            while True:
                key = await queue.get()
                busy[key] += 1
                assert busy[key] == 1
                seen[key] = said[key]
                await asyncio.sleep(0.3)
                busy[key] -= 1
                queue.done(key)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work()) for _ in range(workers)]
            for move, key in taken_moves:
                said[key] += move in ("add", "after", "retry")
                match move:
                    case "add":
                        queue.add(key)
                    case "after":
                        queue.add_after(key, 0.5)
                    case "retry":
                        queue.retry(key)
                    case "hurry":
                        queue.hurry()
                    case _:
                        await asyncio.sleep(0.2)
            await asyncio.sleep(1000)
            assert seen == said
            for task in tasks:
                task.cancel()

    loop = looptime.new_event_loop(start=0)
    try:
        loop.run_until_complete(scenario())
    finally:
        loop.close()
