"""Workers that bring keys to rest, and how a failed look is handled. Also `apart` and `keep`.

A look that fails with an error of ours is retried with a growing delay; any other exception is a bug: it is logged
with its traceback, counted, and costs its own key a delay, not the peer its session.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Final, Generic, TypeVar

from vnode.errors import ApiError, Rejected, Unavailable, VnodeError
from vnode.kube.watch import Backoff
from vnode.runtime.queue import WorkQueue
from vnode.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

LOOK_LIMIT_S: Final = 120.0
REJECTED_RETRY_S: Final = 5.0  # only somebody's edit mends a refusal, and not every edit reaches us as an event


class Controller(Generic[K]):
    """`workers` tasks that take keys from `queue` and await `reconcile(key)`.

    `reconcile` returns None (at rest until something changes) or a delay in seconds after which to look again.
    """

    def __init__(
        self,
        name: str,
        peer: str,
        reconcile: Callable[[K], Coroutine[Any, Any, float | None]],
        metrics: Metrics,
        workers: int = 8,
        queue: WorkQueue[K] | None = None,
    ) -> None:
        self.name = name
        self._peer = peer
        self.queue: WorkQueue[K] = WorkQueue() if queue is None else queue  # an empty one is false
        self._reconcile = reconcile
        self._workers = workers
        self._metrics = metrics
        metrics.queue_depth.labels(name, peer).set_function(self.queue.__len__)

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(self._workers):
                    group.create_task(self._work(), name=f"{self._peer}/{self.name}/{number}")
        finally:
            self.queue.close()

    async def _work(self) -> None:
        queue = self.queue
        while True:
            key = await queue.get()
            try:
                async with asyncio.timeout(LOOK_LIMIT_S):
                    again = await apart(self._reconcile(key))
            except Rejected as error:
                self._again(key, error, at_least_s=REJECTED_RETRY_S)
            except Unavailable as error:
                self._again(key, error, at_least_s=error.after)
            except (VnodeError, TimeoutError) as error:
                self._again(key, error)
            except asyncio.CancelledError as error:
                if _cancelled():
                    raise
                # Somebody cancelled what `reconcile` waited for, not us: a worker that went now would go in silence.
                self._bug(key, error)
            except Exception as error:  # noqa: BLE001 - the one place; told and counted in `_bug`
                self._bug(key, error)
            else:
                queue.forget(key)
                if again is not None:
                    queue.add_after(key, again)
            finally:
                queue.done(key)

    def _bug(self, key: K, error: BaseException) -> None:
        self._metrics.bugs.labels(self.name).inc()
        log.error("bug in reconcile", extra={"controller": self.name, "key": str(key)}, exc_info=error)
        self._again(key, error)

    def _again(self, key: K, error: BaseException, at_least_s: float = 0.0) -> None:
        reason = type(error).__name__
        self._metrics.queue_retries.labels(self.name, self._peer, reason).inc()
        delay = self.queue.retry(key, at_least_s)
        code = error.code if isinstance(error, ApiError) else None
        log.info(
            "will retry",
            extra={
                "controller": self.name,
                "peer": self._peer,
                "key": str(key),
                "error": str(error) or reason,
                "code": code,
                "delay_s": round(delay, 2),
            },
        )


def _cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def apart(work: Coroutine[Any, Any, T]) -> T:
    """Await `work` in a task of its own: its cancellation count stays there, ours still reaches it.

    A TaskGroup whose child failed leaves its parent's `cancelling()` raised before CPython 3.13; retried in the same
    task, an enclosing `asyncio.timeout` would then let CancelledError out and the worker would vanish.
    """
    task = asyncio.get_running_loop().create_task(work)
    try:
        return await task
    except asyncio.CancelledError:
        if not task.done():
            task.cancel()
        raise


async def keep(
    name: str,
    session: Callable[[], Coroutine[Any, Any, None]],
    metrics: Metrics,
    ended: Callable[[str], None] = lambda _: None,
) -> None:
    """Run `session` for ever: whatever it dies of, it is logged and started again, ever more slowly.

    `ended` is told each time what it died of.
    """
    backoff = Backoff(base_s=0.5, cap_s=30.0)
    loop = asyncio.get_running_loop()
    while True:
        started = loop.time()
        try:
            await apart(session())
        except (VnodeError, ExceptionGroup) as error:
            expected = isinstance(error, VnodeError) or not error.split(VnodeError)[1]
            log.warning("session ended", extra={"session": name, "error": _flat(error)}, exc_info=not expected)
            ended(_flat(error))
            if not expected:
                metrics.bugs.labels("session").inc()
        except Exception as error:
            metrics.bugs.labels("session").inc()
            log.exception("bug in session", extra={"session": name})
            ended(_flat(error))
        if loop.time() - started > 60:
            backoff.reset()
        await asyncio.sleep(backoff.next())


def _flat(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_flat(inner) for inner in error.exceptions)
    return str(error) or type(error).__name__
