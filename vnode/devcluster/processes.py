"""A group of child processes that cannot outlive whoever started them.

PR_SET_PDEATHSIG would be the obvious way, but it fires when the *thread* that forked ends, and clusters are started
from short-lived threads. Instead the leader of the process group is a one-line shell that reads from a pipe only we
hold: the moment we are gone, however we went, its read ends and it kills its group, itself included. Called by
controlplane, kwok, realnode and demo.
"""

import abc
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from vnode.devcluster.errors import DevClusterError

_LEADER = ("/bin/sh", "-c", "trap '' TERM INT HUP; read _; kill -KILL 0")


class Startable(abc.ABC):
    """Something of a lab that is started and stopped; as a context manager for the length of the block."""

    @abc.abstractmethod
    def start(self) -> None:
        """Start it and return when it works. Raises DevClusterError."""

    @abc.abstractmethod
    def stop(self) -> None:
        """End it, whatever state it is in."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class ProcessGroup:
    """Named child processes in one process group, each with its log `NAME.log` in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._leader: subprocess.Popen[bytes] | None = None
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def log(self, name: str) -> Path:
        """The file that holds what `name` wrote, over all its starts."""
        return self._directory / f"{name}.log"

    @property
    def pgid(self) -> int | None:
        """The id of the process group, or None while nothing was started."""
        return self._leader.pid if self._leader else None

    def start(self, name: str, argv: Sequence[str | Path], env: Mapping[str, str] | None = None) -> None:
        """Start `argv` as `name`, which must not be running. Raises DevClusterError when it cannot be executed."""
        if self.running(name):
            raise DevClusterError(f"{name} is running already")
        self._directory.mkdir(parents=True, exist_ok=True)
        if self._leader is None:
            self._leader = subprocess.Popen(
                _LEADER, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, process_group=0
            )
        try:
            with self.log(name).open("ab") as log:
                self._children[name] = subprocess.Popen(
                    argv,
                    env=env,
                    cwd=self._directory,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    process_group=self._leader.pid,
                )
        except OSError as error:
            raise DevClusterError(f"{name} cannot be started: {error}") from error

    def running(self, name: str) -> bool:
        """Whether `name` was started and has not ended since."""
        child = self._children.get(name)
        return child is not None and child.poll() is None

    def pid(self, name: str) -> int:
        """The process id of `name`, which must have been started."""
        return self._children[name].pid

    def check(self, name: str) -> None:
        """Raise DevClusterError, with the end of its log, when `name` has ended."""
        child = self._children[name]
        if child.poll() is not None:
            end = f"{name} ended with {child.returncode}; its log {self.log(name)} ends:"
            raise DevClusterError(f"{end}\n{self.tail(name)}")

    def tail(self, name: str, lines: int = 6) -> str:
        """The last lines of what `name` wrote."""
        return "\n".join(self.log(name).read_text(errors="replace").splitlines()[-lines:])

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to `name`; nothing happens when it has ended."""
        if self.running(name):
            self._children[name].send_signal(number)

    def kill(self, name: str) -> None:
        """End `name` at once, as a crash would, and return when it is gone."""
        self.signal(name, signal.SIGKILL)
        self._children[name].wait()

    def terminate(self, name: str, limit_s: float) -> None:
        """Ask `name` to end, and end it when it has not within `limit_s`."""
        self.signal(name, signal.SIGTERM)
        try:
            self._children[name].wait(limit_s)
        except subprocess.TimeoutExpired:
            self.kill(name)

    def stop(self) -> None:
        """End every process at once. May be called at any time and more than once."""
        if self._leader is None:
            return
        os.killpg(self._leader.pid, signal.SIGKILL)
        for process in (*self._children.values(), self._leader):
            process.wait()
        if self._leader.stdin:
            self._leader.stdin.close()
        self._leader = None

    def release(self) -> None:
        """Let the processes outlive us: they go on until `kill -s KILL -- -PGID`."""
        if self._leader is not None:
            # Only the leader goes; its group keeps its number as long as one of the others lives.
            self._leader.kill()
            self._leader.wait()
            self._leader = None


def wait_until(what: str, done: Callable[[], bool], limit_s: float, each_s: float = 0.05) -> None:
    """Return when `done()` is true; DevClusterError naming `what` when it is not within `limit_s` seconds."""
    deadline = time.monotonic() + limit_s
    while not done():
        if time.monotonic() > deadline:
            raise DevClusterError(f"{what}: not within {limit_s:g} s")
        time.sleep(each_s)


_taken: set[int] = set()
_taken_lock = threading.Lock()


def free_port(address: str = "127.0.0.1") -> int:
    """A TCP port nobody listens on, never the same twice in this process.

    Taken below the range that Linux gives to outgoing connections (32768 and up): a port found by binding to 0 is in
    that range, and may be gone to somebody's connection before the server that is to have it has started.
    """
    for _ in range(200):
        port = random.randint(20000, 32000)  # noqa: S311 (no secret)
        with _taken_lock:
            if port in _taken:
                continue
            with socket.socket() as probe:
                try:
                    probe.bind((address, port))
                except OSError:
                    continue
            _taken.add(port)
            return port
    raise DevClusterError(f"no free TCP port on {address} between 20000 and 32000")
