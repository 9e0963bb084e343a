"""Many followers of one log at once, and how late each line comes: the container prints its uptime clock."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vnode.kube.client import PODS, Client
from vnode.kube.credentials import from_kubeconfig
from vnode.kube.objects import Key
from vnode.telemetry.metrics import Metrics


def _uptime() -> float:
    return float(Path("/proc/uptime").read_text().split()[0])


def follow_many(kubeconfig: Path, namespace: str, pod: str, *, followers: int, lines: int) -> list[float]:
    """Seconds from print to sight, for `lines` lines at each of `followers`, from when all of them follow."""
    with ThreadPoolExecutor(1) as thread:  # pytest-asyncio has its own loop in ours
        return thread.submit(asyncio.run, _follow_many(kubeconfig, namespace, pod, followers, lines)).result()


async def _follow_many(kubeconfig: Path, namespace: str, pod: str, followers: int, lines: int) -> list[float]:
    client = Client(from_kubeconfig(str(kubeconfig)), "test", Metrics())
    waiting, everybody = [followers], asyncio.Event()

    async def follow() -> list[float]:
        lags: list[float] = []
        path = PODS.path(Key(namespace, pod), "log")
        params = {"follow": "true", "tailLines": "1"}
        async with client.stream("log", PODS, path, params, accept="*/*", idle_s=60) as content:
            started = False
            async for line in content:
                if not started:
                    started = True
                    waiting[0] -= 1
                    if not waiting[0]:
                        everybody.set()
                elif everybody.is_set():
                    lags.append(_uptime() - float(line))
                    if len(lags) == lines + 2:  # the first ones may have been on their way
                        break
        return lags[2:]

    try:
        async with asyncio.timeout(120), asyncio.TaskGroup() as group:
            tasks = [group.create_task(follow()) for _ in range(followers)]
        return [lag for task in tasks for lag in task.result()]
    finally:
        await client.close()
        await _let_go()


async def _let_go() -> None:
    """Return when every connection is closed, which aiohttp does not wait for: what is left is the loop's own pipe."""
    files = asyncio.get_running_loop()._selector  # type: ignore[attr-defined]
    async with asyncio.timeout(30):
        while len(files.get_map()) > 1:  # noqa: ASYNC110 - what is waited for knows no event
            await asyncio.sleep(0.01)
