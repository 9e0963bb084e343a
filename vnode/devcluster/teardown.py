"""Undo a real node completely: `python teardown.py NAME RUN DIRECTORY`.

Runs as a process of its own from the node's start on, waits until its stdin closes (the node was stopped, or whoever
started it is gone) and then ends the node's processes and containers and removes its mounts, cgroups, network and files
outside DIRECTORY. NAME is the bridge's. Everything is found by what lies on disk and in
/proc, nothing by asking containerd, which may be dead. Exits 1 and tells when something cannot be removed. Started by
realnode only; imports nothing of vnode.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

# Made by kubelet, CNI and shims wherever they run. Those that were not there before us, and are empty after, go.
_SHARED = [
    Path(path)
    for path in (
        "/run/containerd/s",
        "/run/containerd",
        "/var/lib/cni/results",
        "/var/lib/cni",
        "/var/lib/kubelet/device-plugins",
        "/var/lib/kubelet",
        "/var/log/containers",
    )
]
_DEVICE_PLUGINS = Path("/var/lib/kubelet/device-plugins/kubelet.sock")
_PROGRAMS = {"kubelet", "containerd", "containerd-shim-runc-v2", "ctr", "runc"}
_MNT_DETACH = 2


def main(name: str, run: Path, directory: Path) -> None:
    """Wait for the end of stdin, then undo the node. Raises, for the log and the exit code, when that fails."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    made_by_us = [path for path in _SHARED if not path.exists()]
    sys.stdin.buffer.read()
    # Sandboxes still being made appear late: look for containers once nobody can make any more.
    _kill_until_gone(lambda: _programs_of((str(run), str(directory)), {"kubelet", "containerd"}))
    bundles = list((run / "containerd" / "io.containerd.runtime.v2.task").glob("*/*"))
    containers = {bundle.name for bundle in bundles}
    shim_sockets = [Path(text.removeprefix("unix://")) for bundle in bundles if (text := _text(bundle / "address"))]
    _kill_until_gone(lambda: _programs_of((str(run), str(directory)), _PROGRAMS))
    _kill_until_gone(lambda: _processes_in(containers))
    _unmount_below((run, directory))
    for shim_socket in shim_sockets:
        shim_socket.unlink(missing_ok=True)
    _remove_cgroups(containers)
    subprocess.run(["ip", "link", "delete", name], check=True, env={"PATH": "/usr/sbin:/sbin:/usr/bin:/bin"})
    for result in Path("/var/lib/cni/results").glob("*"):
        if result.name.startswith(f"{name}-") or any(container in result.name for container in containers):
            result.unlink()
    for link in Path("/var/log/containers").glob("*.log"):
        if link.is_symlink() and link.readlink().is_relative_to(directory):
            link.unlink()
    if not _answers(_DEVICE_PLUGINS):  # Else another kubelet of this machine has made it its own.
        _DEVICE_PLUGINS.unlink(missing_ok=True)
    shutil.rmtree(run)
    for path in (*_runtime_cgroups(), *made_by_us):
        with contextlib.suppress(OSError):  # Somebody else uses it by now.
            path.rmdir()


def _kill_until_gone(find: Callable[[], Iterable[int]], limit_s: float = 20) -> None:
    deadline = time.monotonic() + limit_s
    while pids := list(find()):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise SystemExit(f"processes {pids} do not end")
        time.sleep(0.05)


def _processes() -> Iterator[Path]:
    own = {os.getpid(), os.getppid()}
    return (path for path in Path("/proc").iterdir() if path.name.isdigit() and int(path.name) not in own)


def _programs_of(places: tuple[str, ...], programs: set[str]) -> Iterator[int]:
    """Processes of the container runtime whose command line names one of our places."""
    for process in _processes():
        argv = _text(process / "cmdline").split("\0")
        if argv[0].rpartition("/")[2] in programs and any(place in arg for arg in argv for place in places):
            yield int(process.name)


def _processes_in(containers: set[str]) -> Iterator[int]:
    """Processes in one of the containers, whatever namespaces they share: their cgroup is named after it."""
    for process in _processes():
        if containers & set(_text(process / "cgroup").replace("\n", "/").split("/")):
            yield int(process.name)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except (OSError, ValueError):  # The process or the file is gone, which is what we want of it.
        return ""


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def _unmount_below(places: tuple[Path, ...]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    points = [Path(line.split()[4]) for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    ours = [point for point in points if any(point.is_relative_to(place) for place in places)]
    for point in reversed(ours):  # Later mounts may lie on earlier ones.
        if libc.umount2(os.fsencode(point), _MNT_DETACH):
            raise OSError(ctypes.get_errno(), f"{point} cannot be unmounted")


def _remove_cgroups(containers: set[str]) -> None:
    # Version 2 has one tree, version 1 a tree for each controller, the hybrid layout both.
    for parent in _runtime_cgroups():
        for container in containers:
            for path, _, _ in os.walk(parent / container, topdown=False):
                Path(path).rmdir()


def _runtime_cgroups() -> list[Path]:
    return [*Path("/sys/fs/cgroup").glob("k8s.io"), *Path("/sys/fs/cgroup").glob("*/k8s.io")]


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
