"""A real node: containerd and a kubelet on this machine, where containers truly run.

Root only, Linux only, and only where Debian's `containerd runc containernetworking-plugins busybox-static` (or their
like) are installed: `available()` tells. One node's Pods reach each other and this machine over a bridge of their own;
nothing beyond. What the kubelet does to any machine it does here too: it sets `vm.overcommit_memory` and
`kernel.panic`. We raise `fs.inotify.max_user_instances`, of which each control plane takes about 20.
Called by `vnode demo --real-nodes` and by tests. Undoing it all is `teardown`'s business.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from vnode.devcluster import images
from vnode.devcluster.controlplane import ControlPlane
from vnode.devcluster.errors import DevClusterError
from vnode.devcluster.pki import write_kubeconfig
from vnode.devcluster.processes import ProcessGroup, Startable, free_port, wait_until

_CNI_BINARIES = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
_INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
_INOTIFY_NEEDED = 1024  # the usual 128 are gone with four control planes, and then no kubelet starts
_PROGRAMS = ("containerd", "containerd-shim-runc-v2", "runc", "ctr", "busybox", "ip")

# Debian keeps some of them where a user's PATH does not look.
_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"))


def available() -> str | None:
    """None when a real node can run here, else the reason why not."""
    if not sys.platform.startswith("linux"):
        return "a real node needs Linux"
    if os.geteuid() != 0:
        return "a real node needs root"
    missing = [program for program in _PROGRAMS if not shutil.which(program, path=_PATH)]
    if missing:
        return f"a real node needs {', '.join(missing)} (Debian: containerd runc busybox-static iproute2)"
    if _cni_binaries() is None:
        return "a real node needs the CNI plugins bridge and host-local (Debian: containernetworking-plugins)"
    return None


class RealNode(Startable):
    """One node named `name` of a control plane that is ready; its files go below the cluster's directory."""

    def __init__(self, cluster: ControlPlane, name: str = "real-0") -> None:
        self.name = name
        self._cluster = cluster
        self.directory = cluster.directory / name
        self.processes = ProcessGroup(self.directory)
        self._janitor: subprocess.Popen[bytes] | None = None
        self._janitor_argv: list[str | Path] = []

    def start(self) -> None:
        """Start containerd and the kubelet and return when the Node is Ready. Raises DevClusterError."""
        if reason := available():
            raise DevClusterError(reason)
        self.directory.mkdir(parents=True, exist_ok=True)
        if int(_INOTIFY.read_text()) < _INOTIFY_NEEDED:
            _INOTIFY.write_text(str(_INOTIFY_NEEDED))
        try:
            number = _new_bridge()
            run = Path(f"/run/vnode{number}")
            self._start_janitor(number, run)
            self._start_containerd(number, run)
            self._start_kubelet(number, run)
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the node, its containers, mounts, bridge and files outside its directory. The Node object stays."""
        self.processes.stop()
        if self._janitor and self._janitor.stdin:
            self._janitor.stdin.close()
            if self._janitor.wait(60):
                log = self.directory / "teardown.log"
                raise DevClusterError(f"node {self.name} left something behind; see {log}:\n{log.read_text()}")
        self._janitor = None

    def release(self) -> list[str]:
        """Let the node outlive us; the command that undoes it then (as root)."""
        if self._janitor is None:
            return []
        self.processes.release()
        self._janitor.kill()
        self._janitor.wait()
        return [str(part) for part in self._janitor_argv]

    def _start_janitor(self, number: int, run: Path) -> None:
        # Containers and mounts survive a kill -9 of whoever started them, so a process of its own undoes them as soon
        # as our end of its stdin closes. It also does so in the ordinary case: one way, always tried.
        # As a file, isolated: it must run whatever the current directory and the environment are by then.
        script = Path(__file__).with_name("teardown.py")
        self._janitor_argv = [sys.executable, "-I", script, f"vnode{number}", run, self.directory]
        with (self.directory / "teardown.log").open("wb") as log:
            self._janitor = subprocess.Popen(
                self._janitor_argv,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _start_containerd(self, number: int, run: Path) -> None:
        cni = self.directory / "cni"
        cni.mkdir(exist_ok=True)
        run.mkdir(exist_ok=True)
        (cni / "bridge.conflist").write_text(json.dumps(_network(number, run)))
        config = self.directory / "containerd.toml"
        config.write_text(_containerd_config(self.directory, run, cni))
        socket = run / "containerd.sock"
        self.processes.start("containerd", [_which("containerd"), "--config", config], env={"PATH": _PATH})
        ctr = [_which("ctr"), "--address", str(socket), "--namespace", "k8s.io"]

        def serves() -> bool:
            self.processes.check("containerd")
            return subprocess.run([*ctr, "version"], capture_output=True, check=False, timeout=20).returncode == 0

        wait_until(f"containerd serves (log {self.processes.log('containerd')})", serves, 30, each_s=0.1)
        archive = self.directory / "images.tar"
        images.write_archive(archive, Path(_which("busybox")))
        # The node's own snapshotter is "native": overlay refuses to lie on some file systems that CI machines have.
        done = subprocess.run(
            [*ctr, "images", "import", "--snapshotter", "native", str(archive)],
            capture_output=True,
            text=True,
            check=False,
        )
        archive.unlink()
        if done.returncode:
            raise DevClusterError(f"images cannot be imported: {done.stderr.strip()}")

    def _start_kubelet(self, number: int, run: Path) -> None:
        authority, address = self._cluster.authority, f"10.213.{number}.1"
        kubeconfig = write_kubeconfig(
            self.directory / "kubelet.conf",
            cluster=self._cluster.name,
            url=self._cluster.url,
            ca=authority.cert,
            client=authority.issue(f"system:node:{self.name}", ["system:nodes"]),
        )
        serving = authority.issue(f"system:node:{self.name}", ["system:nodes"], hosts=[address, self.name])
        cert, key = serving.write(self.directory, "kubelet")
        config = self.directory / "kubelet.yaml"
        config.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "kubelet.config.k8s.io/v1beta1",
                    "kind": "KubeletConfiguration",
                    "address": address,
                    "port": free_port(address),
                    "healthzPort": 0,
                    "tlsCertFile": str(cert),
                    "tlsPrivateKeyFile": str(key),
                    "authentication": {
                        "anonymous": {"enabled": False},
                        "webhook": {"enabled": True},
                        "x509": {"clientCAFile": str(self._cluster.ca)},
                    },
                    "authorization": {"mode": "Webhook"},
                    # What a vnode's port has not, this one has off: the two are compared. Nor is the machine's own
                    # `/var/log` anybody's business here.
                    "enableSystemLogHandler": False,
                    "enableProfilingHandler": False,
                    "enableDebugFlagsHandler": False,
                    "featureGates": dict.fromkeys(("ContainerCheckpoint", "ComponentStatusz", "ComponentFlagz"), False),
                    "containerRuntimeEndpoint": f"unix://{run / 'containerd.sock'}",
                    # The cgroups of a CI machine are often not ours to arrange: no hierarchy, no limits by QoS class.
                    "failCgroupV1": False,
                    "cgroupDriver": "cgroupfs",
                    "cgroupsPerQOS": False,
                    "enforceNodeAllocatable": [],
                    "localStorageCapacityIsolation": False,
                    "failSwapOn": False,
                    "makeIPTablesUtilChains": False,
                    "resolvConf": "",
                    "podLogsDir": str(self.directory / "pod-logs"),
                    # Small and soon, or nobody would ever see a log rotate.
                    "containerLogMaxSize": "4Mi",
                    "containerLogMaxFiles": 3,
                    "containerLogMonitorInterval": "3s",
                    "imageGCHighThresholdPercent": 100,
                    "evictionHard": {"memory.available": "1%"},
                    "registerNode": True,
                }
            )
        )
        self.processes.start(
            "kubelet",
            [
                self._cluster.binaries["kubelet"],
                f"--config={config}",
                f"--kubeconfig={kubeconfig}",
                f"--root-dir={self.directory / 'kubelet'}",
                f"--hostname-override={self.name}",
                f"--node-ip={address}",
            ],
            env={"PATH": _PATH},
        )

    def _wait_until_ready(self) -> None:
        path = '{.status.conditions[?(@.type=="Ready")].status}'

        def ready() -> bool:
            for name in ("containerd", "kubelet"):
                self.processes.check(name)
            node = self._cluster.kubectl("get", "node", self.name, "-o", f"jsonpath={path}", check=False)
            return node.stdout == "True"

        wait_until(f"node {self.name} is Ready (log {self.processes.log('kubelet')})", ready, 60, each_s=0.3)


def _which(program: str) -> str:
    if path := shutil.which(program, path=_PATH):
        return path
    raise DevClusterError(f"{program} is not installed")


def _cni_binaries() -> Path | None:
    return next((path for path in _CNI_BINARIES if (path / "bridge").exists() and (path / "host-local").exists()), None)


def _new_bridge() -> int:
    """The number N of a new bridge `vnodeN`, up, with the address 10.213.N.1; nobody else has it."""
    ip = _which("ip")
    for number in range(1, 255):
        added = subprocess.run(
            [ip, "link", "add", f"vnode{number}", "type", "bridge"], capture_output=True, text=True, check=False
        )
        if added.returncode == 0:
            subprocess.run([ip, "address", "add", f"10.213.{number}.1/24", "dev", f"vnode{number}"], check=True)
            subprocess.run([ip, "link", "set", f"vnode{number}", "up"], check=True)
            return number
        if "File exists" not in added.stderr:
            raise DevClusterError(f"a bridge for the node's Pods cannot be made: {added.stderr.strip()}")
    raise DevClusterError("all bridges vnode1 to vnode254 are taken")


def _network(number: int, run: Path) -> dict[str, object]:
    # Without isGateway: the plugin would switch IP forwarding on for the whole machine. The bridge has its address.
    ipam = {
        "type": "host-local",
        "dataDir": str(run / "ipam"),
        "ranges": [[{"subnet": f"10.213.{number}.0/24", "gateway": f"10.213.{number}.1"}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": f"vnode{number}", "isGateway": False, "ipMasq": False, "ipam": ipam}
    return {"cniVersion": "1.0.0", "name": f"vnode{number}", "plugins": [bridge]}


def _containerd_config(directory: Path, run: Path, cni: Path) -> str:
    # restrict_oom_score_adj: without CAP_SYS_RESOURCE, as in many CI machines, every sandbox would fail.
    # The runtime is named: crun, which some distributions put first, refuses the hybrid cgroup layout.
    return f"""version = 2
root = "{directory / "containerd"}"
state = "{run / "containerd"}"
[grpc]
  address = "{run / "containerd.sock"}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{images.PAUSE}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = "{_which("runc")}"
        Root = "{run / "runc"}"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{_cni_binaries()}"
    conf_dir = "{cni}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{directory / "opt"}"
"""
