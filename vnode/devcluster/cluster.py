"""A whole dev cluster: a control plane, and its nodes, simulated or real, as one thing to start and stop.

Called by the demo and by the tests' fixtures, so that both have the same clusters.
"""

from pathlib import Path

from vnode.devcluster.build import Binaries
from vnode.devcluster.controlplane import ControlPlane
from vnode.devcluster.kwok import Kwok
from vnode.devcluster.processes import Startable
from vnode.devcluster.realnode import RealNode


class Cluster(Startable):
    """Cluster `name` below `directory`, with `simulated` KWOK nodes and `real` ones that run containers.

    `index` (0 to 63) must differ between clusters that know each other: their Services' and Pods' addresses follow
    from it.
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        binaries: Binaries,
        *,
        index: int,
        simulated: int = 0,
        real: int = 0,
        audit_policy: Path | None = None,
    ) -> None:
        self.name = name
        self.plane = ControlPlane(
            name,
            directory,
            binaries,
            service_cidr=f"10.{64 + index}.0.0/16",
            pod_cidr=f"10.{128 + index}.0.0/16",
            audit_policy=audit_policy,
        )
        self.kwok = Kwok(self.plane)
        self.real_nodes = [RealNode(self.plane, f"{name}-real-{number}") for number in range(real)]
        self._simulated = simulated

    def start(self) -> None:
        """Start everything and return when all nodes are Ready. Raises DevClusterError, with nothing left running."""
        try:
            self.plane.start()
            if self._simulated:
                self.kwok.start()
                self.kwok.add_nodes(self._simulated)
            for node in self.real_nodes:
                node.start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End everything; the directory stays, with its logs."""
        for node in self.real_nodes:
            node.stop()
        self.kwok.stop()
        self.plane.stop()

    def release(self) -> list[list[str]]:
        """Let the cluster outlive us; the commands that end it then."""
        groups = [process.pgid for process in (self.kwok.processes, self.plane.processes) if process.pgid]
        undo = [command for node in self.real_nodes if (command := node.release())]
        self.kwok.processes.release()
        self.plane.processes.release()
        return [*undo, *(["kill", "-s", "KILL", "--", f"-{group}"] for group in groups)]
