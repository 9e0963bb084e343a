"""`logs`: how late the lines of a real container come to many followers, through the virtual node and direct."""

import json
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.bench.burst import spread
from tests.bench.lab import VnodeProcess
from tests.expect import eventually
from tests.followers import follow_many
from vnode.devcluster.build import CONTROL_PLANE, ensure_binaries
from vnode.devcluster.cluster import Cluster
from vnode.devcluster.images import BUSYBOX

_CLOCK = "while true; do cut -d' ' -f1 /proc/uptime; sleep 0.2; done"


def logs(followers: int, lines: int) -> dict[str, Any]:
    """Run it (as root, with containerd) and return the figures."""
    binaries = ensure_binaries((*CONTROL_PLANE, "kubelet"), print)
    with tempfile.TemporaryDirectory(prefix="vnode-bench-") as folder, ExitStack() as stack:
        directory = Path(folder)
        home = stack.enter_context(Cluster("home", directory / "home", binaries, index=0))
        peer = stack.enter_context(Cluster("edge", directory / "edge", binaries, index=1, real=1))
        vnode = VnodeProcess(directory, home.plane, peer.plane)
        stack.callback(vnode.stop)
        vnode.wait_ready()
        home.plane.kubectl("create", "-f", "-", input=json.dumps(_pod()))
        home.plane.kubectl("wait", "pod/clock", "--for=condition=Ready", "--timeout=60s")
        cpu = vnode.cpu_s()
        through = follow_many(home.plane.kubeconfig, "default", "clock", followers=followers, lines=lines)
        cpu = vnode.cpu_s() - cpu
        direct = follow_many(peer.plane.kubeconfig, "default-home", "clock", followers=followers, lines=lines)
        home.plane.kubectl("delete", "pod", "clock")
        eventually("the container is gone", lambda: "clock" not in peer.plane.kubectl("get", "pods", "-A").stdout)
    return {
        "scenario": "logs",
        "followers": followers,
        "lines_each": lines,
        "direct": {"line_late_s": spread(direct)},
        "vnode": {"line_late_s": spread(through), "cpu_s": round(cpu, 2)},
    }


def _pod() -> dict[str, Any]:
    container = {"name": "main", "image": BUSYBOX, "command": ["sh", "-c", _CLOCK], "imagePullPolicy": "IfNotPresent"}
    spec = {
        "nodeSelector": {"vnode.dev/peer": "edge"},
        "tolerations": [{"key": "vnode.dev/peer", "operator": "Exists"}],
        "terminationGracePeriodSeconds": 0,
        "containers": [container],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "clock"}, "spec": spec}
