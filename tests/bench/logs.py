"""`logs`: how late the lines of a real container come to many followers, through the virtual node and direct."""

from typing import Any

from tests.bench.burst import spread
from tests.bench.lab import real_lab, running
from tests.followers import follow_many

_CLOCK = "while true; do cut -d' ' -f1 /proc/uptime; sleep 0.2; done"


def logs(followers: int, lines: int) -> dict[str, Any]:
    """Run it (as root, with containerd) and return the figures."""
    with real_lab() as lab, running(lab, "clock", _CLOCK):
        cpu = lab.vnode.cpu_s()
        through = follow_many(lab.home.kubeconfig, "default", "clock", followers=followers, lines=lines)
        cpu = lab.vnode.cpu_s() - cpu
        direct = follow_many(lab.peer.kubeconfig, "default-home", "clock", followers=followers, lines=lines)
    return {
        "scenario": "logs",
        "followers": followers,
        "lines_each": lines,
        "direct": {"line_late_s": spread(direct)},
        "vnode": {"line_late_s": spread(through), "cpu_s": round(cpu, 2)},
    }
