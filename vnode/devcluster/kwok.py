"""Simulated nodes of a dev cluster: KWOK plays kubelet for Nodes with the label `type: kwok`.

No container runs, but Nodes, Leases and Pod statuses are what a kubelet's would be, `kubectl logs` answers from a file,
and a thousand Pods cost a second. What Pods do is written in `stages.yaml`, with the labels and annotations by which a
test can steer it. Called by the demo and by tests; `realnode` is for containers that truly run.
"""

import json
import socket
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import yaml

from vnode.devcluster.build import KUBERNETES
from vnode.devcluster.controlplane import ControlPlane
from vnode.devcluster.pki import write_kubeconfig
from vnode.devcluster.processes import ProcessGroup, Startable, free_port, wait_until

_STAGES = Path(__file__).with_name("stages.yaml")


class Kwok(Startable):
    """KWOK for one control plane, which must be ready when `start` is called."""

    def __init__(self, cluster: ControlPlane) -> None:
        self._cluster = cluster
        self.directory = cluster.directory / "kwok"
        self.processes = ProcessGroup(self.directory)
        self._port = free_port()
        self._nodes = 0

    @property
    def log_file(self) -> Path:
        """What `kubectl logs` of every simulated container shows, in the format of container runtimes."""
        return self.directory / "container.log"

    @property
    def previous_log_file(self) -> Path:
        """The same for `kubectl logs --previous`."""
        return self.directory / "container-previous.log"

    def start(self) -> None:
        """Start KWOK and return when it serves. Nodes and Pods made before are taken up."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for path, run in ((self.log_file, "a"), (self.previous_log_file, "the previous run of a")):
            if not path.exists():
                write_log(path, [f"hello from {run} simulated container in {self._cluster.name}"])
        authority = self._cluster.authority
        cert, key = authority.issue("kwok-kubelet", hosts=["127.0.0.1"]).write(self.directory, "kubelet")
        kubeconfig = write_kubeconfig(
            self.directory / "kwok.conf",
            cluster=self._cluster.name,
            url=self._cluster.url,
            ca=authority.cert,
            client=authority.issue("kwok", ["system:masters"]),
        )
        # Not kwok.yaml: by that name it would be read a second time, as the user's own settings.
        config = self.directory / "stages-and-logs.yaml"
        config.write_text(f"{yaml.safe_dump_all(self._documents(cert, key))}---\n{_STAGES.read_text()}")
        selector = "--manage-nodes-with-label-selector=type=kwok"
        self.processes.start(
            "kwok",
            [self._cluster.binaries["kwok"], f"--kubeconfig={kubeconfig}", f"--config={config}", selector],
            env={"KWOK_WORKDIR": str(self.directory), "HOME": str(self.directory)},
        )
        wait_until(f"kwok of {self._cluster.name} serves (log {self.processes.log('kwok')})", self._serves, 30)

    def stop(self) -> None:
        """End KWOK. Its Nodes stay and become NotReady when their Leases run out, as when machines die."""
        self.processes.stop()

    def add_nodes(
        self,
        count: int,
        *,
        cpu: str = "32",
        memory: str = "128Gi",
        pods: str = "1000",
        labels: Mapping[str, str] | None = None,
        arch: str = "amd64",
        limit_s: float = 30,
    ) -> list[str]:
        """The names of `count` new Nodes of that size, all Ready."""
        names = [f"{self._cluster.name}-{self._nodes + index}" for index in range(count)]
        self._nodes += count
        resources = {"cpu": cpu, "memory": memory, "pods": pods, "ephemeral-storage": "100Gi"}
        nodes = [_node(name, resources, dict(labels or {}), arch) for name in names]
        self._cluster.kubectl(
            "create", "-f", "-", input=json.dumps({"kind": "List", "apiVersion": "v1", "items": nodes})
        )

        def ready() -> bool:
            self.processes.check("kwok")
            return set(names) <= set(self._ready_nodes())

        wait_until(f"{count} simulated nodes of {self._cluster.name} are Ready", ready, limit_s)
        return names

    def _serves(self) -> bool:
        self.processes.check("kwok")
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=1):
                return True
        except OSError:  # Not yet.
            return False

    def _ready_nodes(self) -> Iterable[str]:
        for node in self._cluster.get("/api/v1/nodes?labelSelector=type%3Dkwok")["items"]:
            conditions = {condition["type"]: condition["status"] for condition in node["status"].get("conditions", ())}
            if conditions.get("Ready") == "True":
                yield node["metadata"]["name"]

    def _documents(self, cert: Path, key: Path) -> list[Mapping[str, object]]:
        options = {
            "cidr": self._cluster.pod_cidr,
            "nodeIP": "127.0.0.1",
            "nodePort": self._port,
            "serverAddress": f"127.0.0.1:{self._port}",
            "tlsCertFile": str(cert),
            "tlsPrivateKeyFile": str(key),
            "nodeLeaseDurationSeconds": 40,
            # A configuration of one's own switches KWOK's defaults off: without these it exits or stands still.
            "nodeLeaseParallelism": 4,
            "nodePlayStageParallelism": 4,
            "podPlayStageParallelism": 32,
            "podsOnNodeSyncParallelism": 4,
            "enableDebuggingHandlers": True,
            "enablePodsOnNodeSyncListPager": True,
        }
        logs = [{"logsFile": str(self.log_file), "previousLogsFile": str(self.previous_log_file)}]
        return [
            {"apiVersion": "config.kwok.x-k8s.io/v1alpha1", "kind": "KwokConfiguration", "options": options},
            {
                "apiVersion": "kwok.x-k8s.io/v1alpha1",
                "kind": "ClusterLogs",
                "metadata": {"name": "containers"},
                "spec": {"logs": logs},
            },
        ]


def write_log(path: Path, lines: Iterable[str], stream: str = "stdout") -> None:
    """Append `lines` to a log file in the CRI's format: time, stream, F for a full line, text."""
    with path.open("a") as log:
        for line in lines:
            stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
            log.write(f"{stamp} {stream} F {line}\n")


def _node(name: str, resources: Mapping[str, str], labels: Mapping[str, str], arch: str) -> Mapping[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {"kwok.x-k8s.io/node": "fake"},
            "labels": {
                "type": "kwok",
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": arch,
                "beta.kubernetes.io/os": "linux",
                "beta.kubernetes.io/arch": arch,
                **labels,
            },
        },
        "status": {
            "capacity": resources,
            "allocatable": resources,
            "nodeInfo": {
                "architecture": arch,
                "operatingSystem": "linux",
                "osImage": "Debian GNU/Linux 12 (bookworm)",
                "kernelVersion": "6.1.0",
                "kubeletVersion": f"v{KUBERNETES}",
                "containerRuntimeVersion": "containerd://1.6.20",
                "kubeProxyVersion": "",
                "bootID": "",
                "machineID": "",
                "systemUUID": "",
            },
        },
    }
