"""runtime.controller: failures cost a key its delay and nobody else anything; a session that died is started again."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from vnode.errors import ApiError, Conflict, NotFound, Rejected, Unauthorized, Unavailable, VnodeError
from vnode.runtime.controller import LOOK_LIMIT_S, REJECTED_RETRY_S, Controller, apart, keep
from vnode.telemetry.metrics import Metrics

pytestmark = pytest.mark.looptime

Look = Callable[[str], Coroutine[Any, Any, float | None]]


def now() -> float:
    return asyncio.get_running_loop().time()


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, labels) or 0.0


async def looked(
    look: Look, keys: str = "a", seconds: float = 3600, workers: int = 2
) -> tuple[dict[str, list[float]], Metrics]:
    """When each key was looked at in this time."""
    metrics = Metrics()
    times: dict[str, list[float]] = {key: [] for key in keys}
    started = now()

    async def noted(key: str) -> float | None:
        times[key].append(now() - started)
        return await look(key)

    controller: Controller[str] = Controller("pods", "edge", noted, metrics, workers)
    for key in keys:
        controller.queue.add(key)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            await controller.run()
    return times, metrics


def gaps(times: list[float]) -> list[float]:
    return [round(later - earlier, 3) for earlier, later in zip([0.0, *times], times, strict=False)][1:]


def failing(error: BaseException, times: int) -> Look:
    left = {"": times}

    async def look(_: str) -> None:
        left[""] -= 1
        if left[""] >= 0:
            raise error

    return look


async def test_a_key_at_rest_is_not_looked_at_again() -> None:
    async def look(_: str) -> None:
        return None

    times, metrics = await looked(look, "ab")
    assert {key: len(found) for key, found in times.items()} == {"a": 1, "b": 1}
    assert value(metrics, "vnode_runtime_queue_depth", controller="pods", peer="edge") == 0


async def test_a_key_is_looked_at_again_when_it_asked_for_it() -> None:
    answers = [10.0, 0.0, None]

    async def look(_: str) -> float | None:
        return answers.pop(0)

    times, _ = await looked(look)
    assert times["a"] == pytest.approx([0, 10, 10])


@pytest.mark.parametrize(
    "error", [Conflict("c"), NotFound("n"), Unavailable("u"), ApiError("a"), VnodeError("v"), TimeoutError()]
)
async def test_a_failure_is_tried_again_ever_later_and_without_end(error: Exception) -> None:
    times, metrics = await looked(failing(error, 10**6), seconds=600)
    waits = gaps(times["a"])
    assert waits[0] <= 0.05
    assert all(21 <= wait <= 30 for wait in waits[12:])
    assert len(waits) > 20
    retries = value(metrics, "vnode_runtime_retries_total", controller="pods", peer="edge", reason=type(error).__name__)
    assert retries == len(times["a"])
    assert value(metrics, "vnode_runtime_bugs_total", where="pods") == 0


async def test_a_success_shortens_the_next_delay_again() -> None:
    results: list[Exception | None] = [*[Conflict("c")] * 8, None, Conflict("c"), None]

    async def look(_: str) -> float | None:
        result = results.pop(0)
        if result is not None:
            raise result
        return 100.0 if results else None

    times, _ = await looked(look)
    assert gaps(times["a"])[-1] <= 0.05


@pytest.mark.parametrize("error", [Rejected("no", 422), Unauthorized("who", 401)])
async def test_a_refusal_waits_for_somebodys_edit(error: Exception) -> None:
    times, _ = await looked(failing(error, 1))
    assert times["a"] == pytest.approx([0, REJECTED_RETRY_S])


async def test_the_servers_wish_for_quiet_is_obeyed() -> None:
    times, _ = await looked(failing(Unavailable("busy", 429, after=33), 1))
    assert times["a"] == pytest.approx([0, 33])


async def test_a_look_that_takes_too_long_is_ended_and_tried_again() -> None:
    looks: list[float] = []

    async def look(_: str) -> None:
        looks.append(now())
        if len(looks) == 1:
            await asyncio.sleep(10**6)

    times, metrics = await looked(look)
    assert gaps(times["a"])[0] == pytest.approx(LOOK_LIMIT_S, abs=0.1)
    assert value(metrics, "vnode_runtime_retries_total", controller="pods", peer="edge", reason="TimeoutError") == 1


@pytest.mark.parametrize("bug", [ValueError("what"), KeyError("x"), ExceptionGroup("all", [ValueError("one")])])
async def test_a_bug_costs_its_own_key_a_delay_and_is_told(bug: Exception, caplog: pytest.LogCaptureFixture) -> None:
    async def look(key: str) -> None:
        if key == "a":
            raise bug

    times, metrics = await looked(look, "ab", seconds=300)
    assert len(times["b"]) == 1
    assert gaps(times["a"])[-1] >= 21
    assert value(metrics, "vnode_runtime_bugs_total", where="pods") == len(times["a"])
    told = [record for record in caplog.records if record.message == "bug in reconcile"]
    assert len(told) == len(times["a"])
    assert told[0].exc_info
    assert told[0].exc_info[1] is bug


async def test_a_cancellation_that_is_not_ours_does_not_cost_a_worker() -> None:
    async def look(key: str) -> None:
        if key == "a":
            gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            gone.cancel()
            await gone

    times, metrics = await looked(look, "ab", seconds=300, workers=1)
    assert len(times["a"]) > 5
    assert len(times["b"]) == 1
    assert value(metrics, "vnode_runtime_bugs_total", where="pods") == len(times["a"])


async def test_an_ended_controller_leaves_no_look_behind() -> None:
    ended = []

    async def look(key: str) -> None:
        try:
            await asyncio.sleep(50)
        finally:
            ended.append(key)

    await looked(look, "abc", seconds=10, workers=2)
    assert sorted(ended) == ["a", "b"]
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_keys_are_worked_on_side_by_side() -> None:
    async def look(_: str) -> None:
        await asyncio.sleep(10)

    times, _ = await looked(look, "abcd", workers=2)
    assert sorted(found[0] for found in times.values()) == pytest.approx([0, 0, 10, 10])


# --- apart ---


async def test_apart_hands_on_the_result_and_the_error() -> None:
    async def good() -> int:
        return 7

    async def bad() -> int:
        raise ValueError("what")

    assert await apart(good()) == 7
    with pytest.raises(ValueError, match="what"):
        await apart(bad())


async def test_our_cancellation_reaches_the_work_and_waits_for_its_end() -> None:
    seen = []

    async def work() -> None:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            await asyncio.sleep(1)
            seen.append("freed")
            raise

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            await apart(work())
    assert seen == ["freed"]


async def test_a_failed_group_apart_leaves_our_timeouts_alone() -> None:
    # The trap of CPython before 3.13: the group raises its parent's cancellation count for good.
    async def group_of_failures() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(failing(ValueError("one"), 1)("a"))
            await asyncio.sleep(10)

    for _ in range(3):
        with pytest.raises(ExceptionGroup):
            await apart(group_of_failures())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await asyncio.sleep(5)


# --- keep ---


async def kept(ends: list[Exception | None], lasting_s: float, seconds: float) -> tuple[list[float], Metrics]:
    """When a session was started that ends in these ways, each after `lasting_s`."""
    starts: list[float] = []
    metrics, started = Metrics(), now()

    async def session() -> None:
        starts.append(now() - started)
        await asyncio.sleep(lasting_s)
        end = ends.pop(0) if ends else Unavailable("away")
        if end is not None:
            raise end

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            await keep("edge", session, metrics)
    return starts, metrics


async def test_a_session_is_started_again_ever_more_slowly_up_to_a_cap() -> None:
    starts, metrics = await kept([], 0.0, 600)
    waits = gaps(starts)
    assert waits[0] <= 0.5
    assert all(15 <= wait <= 30 for wait in waits[7:])
    assert value(metrics, "vnode_runtime_bugs_total", where="session") == 0


async def test_a_session_that_lasted_is_started_again_soon() -> None:
    starts, _ = await kept([], 61.0, 1000)
    assert all(wait <= 61.5 for wait in gaps(starts))


async def test_a_session_that_simply_returns_is_started_again() -> None:
    starts, _ = await kept([None, None], 1.0, 10)
    assert len(starts) > 2


@pytest.mark.parametrize(
    ("end", "bugs"),
    [
        (Unavailable("away"), 0),
        (ExceptionGroup("session", [Unavailable("away"), Conflict("old")]), 0),
        (ExceptionGroup("session", [ExceptionGroup("inner", [Unavailable("away")])]), 0),
        (ExceptionGroup("session", [Unavailable("away"), KeyError("bug")]), 1),
        (KeyError("bug"), 1),
    ],
)
async def test_what_ended_a_session_is_told_and_bugs_are_counted(
    end: Exception, bugs: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        _, metrics = await kept([end], 0.0, 2)
    assert value(metrics, "vnode_runtime_bugs_total", where="session") == bugs
    assert bool(caplog.records[0].exc_info) == bool(bugs)
