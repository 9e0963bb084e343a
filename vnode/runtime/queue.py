"""A queue of keys that need a look: each held at most once, never with two workers at a time.

The contract is that of client-go's `util/workqueue` (`dirty` and `processing` sets): fair, without duplicates, a key
added while it is being worked on comes back after. Nothing is ever given up; only the delay between tries is capped.
"""

import asyncio
import random
from collections import deque
from collections.abc import Hashable, Iterable
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

BASE_S: Final = 0.05
CAP_S: Final = 30.0


class WorkQueue(Generic[K]):
    """For any number of producers and workers of one event loop."""

    def __init__(self, base_s: float = BASE_S, cap_s: float = CAP_S) -> None:
        self._ready: deque[K] = deque()
        self._dirty: set[K] = set()
        self._busy: set[K] = set()
        self._waiting: asyncio.Semaphore = asyncio.Semaphore(0)
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}
        self._base_s = base_s
        self._cap_s = cap_s

    def __len__(self) -> int:
        return len(self._ready)

    def add(self, key: K) -> None:
        """Have `key` looked at as soon as a worker is free; any later appointment of it is cancelled."""
        self._cancel(key)
        if key not in self._dirty:
            self._dirty.add(key)
            if key not in self._busy:
                self._offer(key)

    def add_all(self, keys: Iterable[K]) -> None:
        """Have all of them looked at as soon as workers are free."""
        for key in list(keys):
            self.add(key)

    def add_after(self, key: K, delay_s: float) -> None:
        """Have `key` looked at in `delay_s`; of two appointments the earlier one stands."""
        if key in self._dirty:
            return
        loop = asyncio.get_running_loop()
        held = self._timers.get(key)
        if held is not None and held.when() <= loop.time() + delay_s:
            return
        self._cancel(key)
        self._timers[key] = loop.call_later(delay_s, self.add, key)

    def retry(self, key: K, at_least_s: float = 0.0) -> float:
        """Look again after a delay that doubles with each failure up to the cap; the delay chosen, in seconds."""
        tries = self._failures.get(key, 0)
        self._failures[key] = tries + 1
        # Without the cap on the exponent this overflows after days of a peer being away.
        delay = min(self._cap_s, self._base_s * 2.0 ** min(tries, 30)) * random.uniform(0.7, 1.0)  # noqa: S311
        delay = max(delay, at_least_s)
        self.add_after(key, delay)
        return delay

    def forget(self, key: K) -> None:
        """`key` went well: its next failure starts from the shortest delay again."""
        self._failures.pop(key, None)

    def hurry(self) -> None:
        """Look at every key that waits for an appointment now (the peer is back)."""
        for key in list(self._timers):
            self.add(key)

    async def get(self) -> K:
        """The next key; call `done` with it afterwards."""
        await self._waiting.acquire()
        key = self._ready.popleft()
        self._dirty.discard(key)
        self._busy.add(key)
        return key

    def done(self, key: K) -> None:
        """The worker has finished with `key`, well or not."""
        self._busy.discard(key)
        if key in self._dirty:
            self._offer(key)

    def close(self) -> None:
        """Cancel every appointment; nothing will come from the queue's own timers any more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _offer(self, key: K) -> None:
        self._ready.append(key)
        self._waiting.release()

    def _cancel(self, key: K) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
