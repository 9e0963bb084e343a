"""`streams`: exec, logs and `kubectl cp` of a real container, through the virtual node and direct, turn about.

Each figure is of one run on one machine, the two sides alternating, so that a neighbour's load meets both.
"""

import asyncio
import contextlib
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from tests.bench.burst import spread
from tests.bench.lab import Lab, real_lab, running
from tests.bench.sessions import Session, Side, echo

POD: Final = "streams"
ECHOES: Final = 500
STARTS: Final = 30
LOG_READS: Final = 40
COPIES: Final = 6
OPENING: Final = 8  # sessions begun at a time: each is a process that runc starts

# One file of the kubelet's, which rotates at 4 MiB; lines of 160 bytes.
_LOG_LINES: Final = 18_000
_SCRIPT: Final = f"yes $(printf %0159d 0) | head -n {_LOG_LINES}; while true; do sleep 1000; done"
_LINE: Final = b"x" * 63 + b"\n"


def streams(sessions: int, mib: int) -> dict[str, Any]:
    """Run it (as root, with containerd) and return the figures."""
    with real_lab() as lab, running(lab, POD, _SCRIPT):
        figures = asyncio.run(_exec_and_logs(lab))
        figures |= _copies(lab, mib)
        figures["idle"] = asyncio.run(_idle(lab, sessions))
    return {"scenario": "streams", "mib": mib, **figures}


@contextlib.asynccontextmanager
async def _sides(lab: Lab) -> AsyncIterator[dict[str, Side]]:
    sides = {"direct": Side(lab.peer, "default-home", POD), "vnode": Side(lab.home, "default", POD)}
    try:
        yield sides
    finally:
        for side in sides.values():
            await side.close()


async def _exec_and_logs(lab: Lab) -> dict[str, Any]:
    async with _sides(lab) as sides:
        sessions = {name: await side.execute("cat") for name, side in sides.items()}
        echoes = await _in_turn(ECHOES, {name: lambda s=s: echo(s, _LINE) for name, s in sessions.items()})  # type: ignore[misc]
        starts = await _in_turn(STARTS, {name: lambda s=s: _start(s) for name, s in sides.items()})  # type: ignore[misc]
        reads = await _in_turn(LOG_READS, {name: lambda s=s: _read(s) for name, s in sides.items()})  # type: ignore[misc]
    size_mib = _LOG_LINES * 160 / 2**20
    return {
        "echo": _latency(echoes),
        "start": _latency(starts),
        "log": _throughput(size_mib, reads),
    }


async def _start(side: Side) -> None:
    """From nothing to the first answer of the process."""
    session = await side.execute("cat")
    await echo(session, _LINE)
    await session.close()


async def _read(side: Side) -> None:
    size = await side.read_log()
    assert size == _LOG_LINES * 160, f"read {size} bytes"


async def _in_turn(rounds: int, what: dict[str, Callable[[], Awaitable[None]]]) -> dict[str, list[float]]:
    """The seconds of each, each side going first in every other round; the first two rounds do not count."""
    times: dict[str, list[float]] = {name: [] for name in what}
    for number in range(rounds + 2):
        for name in list(what) if number % 2 else reversed(what):
            start = time.perf_counter()
            await what[name]()
            times[name].append(time.perf_counter() - start)
    return {name: taken[2:] for name, taken in times.items()}


def _latency(times: dict[str, list[float]]) -> dict[str, Any]:
    """Milliseconds, and by how many the median through vnode is longer."""
    medians = {name: statistics.median(taken) * 1000 for name, taken in times.items()}
    spreads = {f"{name}_s": spread(taken) for name, taken in times.items()}
    return {**spreads, "added_ms_p50": round(medians["vnode"] - medians["direct"], 2)}


def _throughput(size_mib: float, times: dict[str, list[float]]) -> dict[str, float]:
    rates = {name: size_mib / statistics.median(taken) for name, taken in times.items()}
    return {
        "direct_mib_s": round(rates["direct"], 1),
        "vnode_mib_s": round(rates["vnode"], 1),
        "share": round(rates["vnode"] / rates["direct"], 2),
    }


def _copies(lab: Lab, mib: int) -> dict[str, Any]:
    places = {"direct": (lab.peer, f"default-home/{POD}"), "vnode": (lab.home, f"default/{POD}")}
    times: dict[str, dict[str, list[float]]] = {"cp_to": {}, "cp_from": {}}
    with tempfile.TemporaryDirectory(prefix="vnode-bench-") as folder:
        here, back = Path(folder) / "here", Path(folder) / "back"
        here.write_bytes(os.urandom(mib * 2**20))
        for number in range(COPIES + 1):
            for name in list(places) if number % 2 else reversed(places):
                plane, pod = places[name]
                for how, paths in (("cp_to", (here, f"{pod}:/file")), ("cp_from", (f"{pod}:/file", back))):
                    start = time.perf_counter()
                    plane.kubectl("cp", *paths, timeout=300)
                    if number:  # the first of each warms caches
                        times[how].setdefault(name, []).append(time.perf_counter() - start)
                subprocess.run(["cmp", here, back], check=True)
                back.unlink()
    return {how: _throughput(mib, taken) for how, taken in times.items()}


async def _idle(lab: Lab, count: int) -> dict[str, Any]:
    """What so many sessions, in which nothing happens, hold of vnode's memory."""
    before = lab.vnode.rss_mib()
    async with _sides(lab) as sides:
        side, gate = sides["vnode"], asyncio.Semaphore(OPENING)

        async def opened() -> Session:
            async with gate:
                session = await side.execute("cat")
                await echo(session, _LINE)
                return session

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(opened()) for _ in range(count)]
        sessions = [task.result() for task in tasks]
        rss = lab.vnode.rss_mib()
        for session in sessions:  # idle, not dead
            await echo(session, _LINE)
    return {"sessions": count, "rss_before_mib": round(before, 1), "rss_mib": round(rss, 1)}
