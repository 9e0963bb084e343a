"""kubectl as its users run it: bytes, exit codes, a terminal; and a kubelet's port asked past every apiserver.

For tests that hold what came through vnode against the same straight at the peer.
"""

import contextlib
import fcntl
import http.client
import os
import pty
import re
import select
import signal
import ssl
import struct
import subprocess
import termios
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple, Self

from tests.expect import eventually
from vnode.devcluster.controlplane import ControlPlane

SPDY = {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "false", "KUBECTL_PORT_FORWARD_WEBSOCKETS": "false"}


class Done(NamedTuple):
    """How a command ended and what it said."""

    code: int
    out: bytes
    err: bytes


@dataclass(frozen=True)
class Kubectl:
    """kubectl in one namespace of one cluster; `env` is added to its environment."""

    plane: ControlPlane
    namespace: str
    env: Mapping[str, str]

    def command(self, *args: str | Path) -> list[str]:
        """The words of a command line."""
        kubectl = [str(self.plane.binaries["kubectl"]), "--kubeconfig", str(self.plane.kubeconfig)]
        return [*kubectl, "--namespace", self.namespace, *map(str, args)]

    @property
    def environment(self) -> dict[str, str]:
        """What it runs in."""
        return {**os.environ, "KUBERC": "off", **self.env}

    def run(self, *args: str | Path, data: bytes = b"", limit_s: float = 120) -> Done:
        """One command to its end, `data` being its standard input."""
        done = subprocess.run(
            self.command(*args), input=data, capture_output=True, timeout=limit_s, check=False, env=self.environment
        )
        return Done(done.returncode, done.stdout, done.stderr)

    @contextlib.contextmanager
    def started(self, *args: str | Path, out: IO[bytes] | None = None) -> Iterator["subprocess.Popen[bytes]"]:
        """A command that runs for as long as the block; its standard streams are pipes, or `out` its output."""
        pipe = subprocess.PIPE
        with subprocess.Popen(
            self.command(*args), stdin=pipe, stdout=out or pipe, stderr=pipe, env=self.environment
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    @contextlib.contextmanager
    def forwarded(self, pod: str, port: int) -> Iterator[int]:
        """`kubectl port-forward` for the block; the local port."""
        with self.started("port-forward", f"pod/{pod}", f":{port}") as process:
            found = re.search(rb"127\.0\.0\.1:(\d+)", read_line(process))
            assert found is not None
            yield int(found[1])


def read_line(process: "subprocess.Popen[bytes]", limit_s: float = 30) -> bytes:
    """The next line of a command's standard output, which nobody may read otherwise."""
    assert process.stdout is not None
    line = b""
    while not line.endswith(b"\n"):
        assert select.select([process.stdout], [], [], limit_s)[0], f"no line after {line!r}"
        more = os.read(process.stdout.fileno(), 1)
        assert more, f"it ended after {line!r}"
        line += more
    return line


class Terminal:
    """A command at a terminal of a size, typed into and read from as by a person."""

    def __init__(self, kubectl: Kubectl, *args: str, rows: int, columns: int) -> None:
        self._ours, theirs = pty.openpty()
        self._size(rows, columns)
        self._process = subprocess.Popen(
            kubectl.command(*args),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=kubectl.environment,
            start_new_session=True,
        )
        os.close(theirs)
        self._shown = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._ours)

    def type(self, text: str) -> None:
        """Press these keys."""
        os.write(self._ours, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        """Give the terminal another size, and say so as the kernel does."""
        self._size(rows, columns)
        self._process.send_signal(signal.SIGWINCH)

    def shows(self, pattern: str, limit_s: float = 30) -> None:
        """Return when what `pattern` matches has been printed, and forget all up to its end."""

        def seen() -> bool:
            self._read()
            found = re.search(pattern.encode(), self._shown)
            assert found, f"shown so far: {self._shown!r}"
            self._shown = self._shown[found.end() :]
            return True

        eventually(f"the terminal shows {pattern}", seen, limit_s)

    def asked(self, text: str, pattern: str) -> None:
        """Type `text` until what `pattern` matches is printed."""

        def answered() -> bool:
            self.type(text)
            self.shows(pattern, 1)
            return True

        eventually(f"{text!r} is answered with {pattern}", answered)

    def ended(self, limit_s: float = 30) -> int:
        """The exit code, once the command has ended."""

        def over() -> bool:
            self._read()
            return self._process.poll() is not None

        eventually("the command ends", over, limit_s)
        return self._process.returncode

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the other end is closed
            while select.select([self._ours], [], [], 0)[0] and (more := os.read(self._ours, 65_536)):
                self._shown += more

    def _size(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


class Answer(NamedTuple):
    """Of a kubelet's port."""

    status: int
    text: str


class KubeletPort:
    """The port of a Node, virtual or real, asked as its cluster's administrator, not through an apiserver."""

    def __init__(self, plane: ControlPlane, node: str, directory: Path) -> None:
        status = plane.get(f"/api/v1/nodes/{node}")["status"]
        self._address = next(item["address"] for item in status["addresses"] if item["type"] == "InternalIP")
        self._port = int(status["daemonEndpoints"]["kubeletEndpoint"]["Port"])
        self._trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._trust.check_hostname, self._trust.verify_mode = False, ssl.CERT_NONE
        admin = plane.authority.issue("admin", ["system:masters"])
        self._trust.load_cert_chain(*admin.write(directory, f"admin-{node}"))

    def ask(self, method: str, path: str, headers: Mapping[str, str]) -> Answer:
        """Status and text of one request's answer; of an upgrade, nothing behind its head."""
        with contextlib.closing(
            http.client.HTTPSConnection(self._address, self._port, timeout=30, context=self._trust)
        ) as connection:
            connection.request(method, path, headers=dict(headers))
            response = connection.getresponse()
            return Answer(response.status, "" if response.status == 101 else response.read().decode())
