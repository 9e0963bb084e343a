"""The bench's machine: a home and a peer control plane, nodes in the peer, and vnode between, on loopback."""

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.expect import eventually
from vnode.devcluster.build import CONTROL_PLANE, ensure_binaries
from vnode.devcluster.cluster import Cluster
from vnode.devcluster.controlplane import ControlPlane, start_together
from vnode.devcluster.images import BUSYBOX
from vnode.devcluster.kwok import Kwok

_SAMPLE = re.compile(
    r'vnode_kube_requests_total\{code="(\d+)",resource="(\w*)",side="([\w-]+)",verb="(\w+)"\} ([\d.e+]+)'
)


@dataclass(slots=True)
class Lab:
    """Handles to what runs."""

    home: ControlPlane
    peer: ControlPlane
    vnode: "VnodeProcess"


class VnodeProcess:
    """A `vnode run` child, and what it costs."""

    def __init__(self, directory: Path, home: ControlPlane, peer: ControlPlane) -> None:
        peers = [{"name": "edge", "kubeconfig": str(peer.kubeconfig)}]
        config = {"cluster": "home", "kubelet": {"address": "127.0.0.1"}, "peers": peers}
        path = directory / "vnode.yaml"
        path.write_text(yaml.safe_dump(config))
        self._log = (directory / "vnode.log").open("wb")
        command = [sys.executable, "-m", "vnode", "run", "--config", str(path), "--kubeconfig", str(home.kubeconfig)]
        self._process = subprocess.Popen([*command, "--admin-port", "0"], stderr=self._log)
        self._port = self._wait_for_port(directory / "vnode.log")

    def _wait_for_port(self, log: Path) -> int:
        for _ in range(300):
            if found := re.search(r'"admin port open".*"port": (\d+)', log.read_text()):
                return int(found[1])
            time.sleep(0.1)
        raise RuntimeError(f"vnode did not start: {log.read_text()}")

    def wait_ready(self) -> None:
        for _ in range(600):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self._port}/readyz"):
                return
            time.sleep(0.1)
        raise RuntimeError("vnode did not become ready")

    def requests(self) -> Counter[str]:
        """Requests so far, by side, verb and resource."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics") as answer:
            text = answer.read().decode()
        counts: Counter[str] = Counter()
        for code, resource, side, verb, number in _SAMPLE.findall(text):
            refused = "" if code.startswith("2") else f" {code}"
            counts[f"{side} {verb} {resource}{refused}"] += int(float(number))
        return counts

    def cpu_s(self) -> float:
        """User and system seconds so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_mib(self) -> float:
        """The memory it holds now."""
        return self._status_mib("VmRSS")

    def peak_rss_mib(self) -> float:
        """The most memory it ever held."""
        return self._status_mib("VmHWM")

    def _status_mib(self, field: str) -> float:
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(re.search(rf"{field}:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)
        self._log.close()


@contextlib.contextmanager
def real_lab() -> Iterator[Lab]:
    """A peer whose one node runs containers, for the length of the block. Needs root and containerd."""
    binaries = ensure_binaries((*CONTROL_PLANE, "kubelet"), _say)
    with tempfile.TemporaryDirectory(prefix="vnode-bench-") as folder, contextlib.ExitStack() as stack:
        directory = Path(folder)
        home = stack.enter_context(Cluster("home", directory / "home", binaries, index=0)).plane
        peer = stack.enter_context(Cluster("edge", directory / "edge", binaries, index=1, real=1)).plane
        vnode = VnodeProcess(directory, home, peer)
        stack.callback(vnode.stop)
        vnode.wait_ready()
        yield Lab(home, peer, vnode)


@contextlib.contextmanager
def running(lab: Lab, name: str, script: str) -> Iterator[None]:
    """A Pod `default/name` at home whose one container runs `script`; its mirror is in `default-home`."""
    container = {"name": "main", "image": BUSYBOX, "command": ["sh", "-c", script], "imagePullPolicy": "IfNotPresent"}
    spec = {
        "nodeSelector": {"vnode.dev/peer": "edge"},
        "tolerations": [{"key": "vnode.dev/peer", "operator": "Exists"}],
        "terminationGracePeriodSeconds": 0,
        "containers": [container],
    }
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
    lab.home.kubectl("create", "-f", "-", input=json.dumps(manifest))
    lab.home.kubectl("wait", f"pod/{name}", "--for=condition=Ready", "--timeout=60s")
    yield
    lab.home.kubectl("delete", "pod", name)
    eventually("the container is gone", lambda: name not in lab.peer.kubectl("get", "pods", "-A").stdout)


@contextlib.contextmanager
def lab() -> Iterator[Lab]:
    """A peer with simulated nodes, for the length of the block."""
    binaries = ensure_binaries((*CONTROL_PLANE, "kwok"), _say)
    with tempfile.TemporaryDirectory(prefix="vnode-bench-") as folder, contextlib.ExitStack() as stack:
        directory = Path(folder)
        home = ControlPlane("home", directory / "home", binaries, service_cidr="10.96.0.0/16")
        peer = ControlPlane("edge", directory / "edge", binaries, service_cidr="10.97.0.0/16", pod_cidr="10.128.0.0/9")
        stack.callback(peer.stop)
        stack.callback(home.stop)
        start_together([home, peer])
        kwok = Kwok(peer)
        stack.callback(kwok.stop)
        kwok.start()
        kwok.add_nodes(20, cpu="1000", memory="4000Gi", pods="1100")
        vnode = VnodeProcess(directory, home, peer)
        stack.callback(vnode.stop)
        vnode.wait_ready()
        yield Lab(home, peer, vnode)


def _say(line: str) -> None:
    print(line, file=sys.stderr)
