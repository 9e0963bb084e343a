"""What `vnode demo` does: a home cluster and some peers on this machine, vnode between them, and a Deployment.

Everything lives in one temporary directory and ends with the demo, unless it is asked to stay. vnode itself runs as a
child process with a configuration file, as a user would run it. Called by `cli` only.
"""

import json
import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

import yaml
from rich.console import Console

from vnode import names
from vnode.devcluster import images
from vnode.devcluster.build import CONTROL_PLANE, ensure_binaries
from vnode.devcluster.cluster import Cluster
from vnode.devcluster.controlplane import start_together
from vnode.devcluster.errors import DevClusterError
from vnode.devcluster.processes import ProcessGroup, free_port, wait_until
from vnode.devcluster.realnode import available
from vnode.devcluster.show import Picture, View, observe

_READY_WITHIN_S = 90
_PODS_PER_PEER = 2
_SELECTOR = {"type": "virtual-kubelet"}


def run_demo(peers: int = 2, keep: bool = False, real_nodes: bool = False, exit_when_ready: bool = False) -> int:
    """Run the demo; the process's exit code: 0 once the Deployment was Ready, 1 when something failed, 130 before.

    It stays until Ctrl-C (or SIGTERM), or with `exit_when_ready` ends by itself. `keep` leaves clusters, vnode and
    their directory as they are at that moment, and tells the command that ends them. `real_nodes` gives the peers a
    node that runs containers, instead of simulated ones; it needs root and containerd.
    """
    console = Console(highlight=False)
    demo = _Demo(console, peers, real_nodes)
    # SIGINT too: a shell starts what it puts in the background with SIGINT ignored, and Python leaves it at that.
    handlers = {number: signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        demo.start()
        with View(console) as view:
            demo.wait_until_ready(view)
            demo.explain()
            if not exit_when_ready:
                demo.stay(view)
    except DevClusterError as error:
        logs = "" if keep else "\nThe logs are gone now; --keep keeps them."
        console.print(f"vnode demo: {error}{logs}", markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        return 0 if demo.was_ready else 130
    finally:
        for number in handlers:
            signal.signal(number, signal.SIG_IGN)  # A second Ctrl-C must not stop the cleaning up.
        if keep:
            demo.leave()
        else:
            demo.stop()
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return 0


def deploy_dir() -> Path:
    """The directory with the manifests to install: inside an installed package, else the repository's."""
    package = Path(__file__).parents[1]
    for directory in (package / "_deploy", package.parent / "deploy"):
        if directory.is_dir():
            return directory
    raise DevClusterError(f"the manifests are missing: neither {package / '_deploy'} nor {package.parent / 'deploy'}")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


class _Demo:
    def __init__(self, console: Console, peers: int, real_nodes: bool) -> None:
        self.was_ready = False
        self._console = console
        self._peer_count = peers
        self._real_nodes = real_nodes
        self._began = time.monotonic()
        self._directory: Path | None = None
        self._clusters: list[Cluster] = []
        self._vnode: ProcessGroup | None = None
        self._admin_port = free_port()

    def start(self) -> None:
        if self._peer_count < 1:
            raise DevClusterError("--peers must be at least 1")
        if self._real_nodes and (reason := available()):
            raise DevClusterError(reason)
        binaries = ensure_binaries((*CONTROL_PLANE, "kubelet" if self._real_nodes else "kwok"), self._say)
        self._began = time.monotonic()  # A first run's build is told, and measured, by itself.
        directory = self._directory = Path(tempfile.mkdtemp(prefix="vnode-demo-"))
        real, simulated = (1, 0) if self._real_nodes else (0, 2)
        self._clusters = [
            Cluster("home", directory / "home", binaries, index=0),
            *(
                Cluster(name, directory / name, binaries, index=number, real=real, simulated=simulated)
                for number in range(1, self._peer_count + 1)
                for name in (f"peer-{number}",)
            ),
        ]
        self._say(f"starting {', '.join(cluster.name for cluster in self._clusters)} in {directory}")
        start_together(self._clusters)
        home = self._clusters[0].plane
        home.kubectl("apply", "-f", deploy_dir() / "base" / "admission-policy.yaml")
        self._start_vnode(directory)
        # The apiserver takes a moment to heed a new policy, and a Pod it missed would wait for its toleration for ever.
        wait_until("the admission policy adds tolerations", self._policy_is_heeded, 30, each_s=0.1)
        manifest = directory / "hello.yaml"
        manifest.write_text(yaml.safe_dump(_deployment(self._peer_count), sort_keys=False))
        home.kubectl("apply", "-f", manifest)

    def wait_until_ready(self, view: View) -> None:
        pods = _PODS_PER_PEER * self._peer_count
        first_s: float | None = None
        deadline = time.monotonic() + _READY_WITHIN_S
        while not self.was_ready:
            if time.monotonic() > deadline:
                raise DevClusterError(self._why_not_ready())
            time.sleep(0.25)
            picture = self._observe(view)
            if first_s is None and any(pod.ready for pod in picture.pods):
                first_s = self._elapsed_s()
            self.was_ready = picture.complete(self._peer_count, pods)
        view.settle()
        self._say(f"\nThe first Pod was Ready after {first_s:.1f} s, all {pods} after {self._elapsed_s():.1f} s.")

    def explain(self) -> None:
        home, *peers = self._clusters
        directory = home.plane.directory.parent
        kubectl = home.plane.binaries["kubectl"]
        lines = [
            "Try, in another terminal:",
            f"  export KUBECONFIG={home.plane.kubeconfig}",
            *([] if shutil.which("kubectl") else [f"  alias kubectl={kubectl}"]),
            "  kubectl get nodes -o wide",
            "  kubectl get pods -o wide",
            "  kubectl logs -f deployment/hello",
            "  kubectl scale deployment/hello --replicas=20",
            "  kubectl rollout restart deployment/hello; kubectl rollout status deployment/hello",
            "  kubectl delete deployment hello",
            "The same Pods, seen at the peers:",
            *(f"  kubectl --kubeconfig {peer.plane.kubeconfig} get pods -A -o wide" for peer in peers),
            f"vnode's configuration is {directory / 'vnode.yaml'}, its log {directory / 'vnode.log'},",
            f"its metrics are at http://127.0.0.1:{self._admin_port}/metrics.",
        ]
        self._say("\n".join(lines))

    def stay(self, view: View) -> None:
        self._say("\nCtrl-C ends everything. Until then, what changes:")
        while True:
            self._observe(view)
            time.sleep(0.5)

    def leave(self) -> None:
        """Leave all running, with a script that ends it."""
        if self._directory is None:
            return
        undo: list[list[str]] = []
        if self._vnode and self._vnode.pgid:
            undo.append(["kill", "-s", "KILL", "--", f"-{self._vnode.pgid}"])
            self._vnode.release()
        for cluster in self._clusters:
            undo += cluster.release()
        undo.append(["rm", "-rf", str(self._directory)])
        script = self._directory / "stop.sh"
        script.write_text("#!/bin/sh\n" + "".join(f"{shlex.join(command)} </dev/null\n" for command in undo))
        self._say(f"\nEverything is left running; `sh {script}` ends it and removes {self._directory}.")

    def stop(self) -> None:
        """End all, and remove its directory."""
        if self._directory is None:
            return
        if self._vnode:
            if self._vnode.running("vnode"):
                self._vnode.terminate("vnode", limit_s=5)
            self._vnode.stop()
        for cluster in self._clusters:
            cluster.stop()
        shutil.rmtree(self._directory)

    def _start_vnode(self, directory: Path) -> None:
        home, *peers = self._clusters
        config = directory / "vnode.yaml"
        document = {
            "cluster": "home",
            "kubelet": {"address": "127.0.0.1", "clientCA": str(home.plane.ca)},
            "peers": [{"name": peer.name, "kubeconfig": str(peer.plane.kubeconfig)} for peer in peers],
        }
        config.write_text(yaml.safe_dump(document, sort_keys=False))
        self._vnode = ProcessGroup(directory)
        arguments: list[str | Path] = ["run", "--config", config, "--kubeconfig", home.plane.kubeconfig]
        self._vnode.start(
            "vnode",
            [sys.executable, "-m", "vnode", *arguments, "--admin-port", str(self._admin_port)],
            # Run from a checkout, this package is where the current directory is, and nowhere else.
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )

    def _observe(self, view: View) -> Picture:
        if self._vnode:
            self._vnode.check("vnode")
        home, *peers = (cluster.plane for cluster in self._clusters)
        picture = observe(home, peers, "default")
        view.show(picture, self._elapsed_s())
        return picture

    def _policy_is_heeded(self) -> bool:
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "probe"},
            "spec": {"nodeSelector": _SELECTOR, "containers": [{"name": "probe", "image": images.BUSYBOX}]},
        }
        home = self._clusters[0].plane
        made = home.kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", input=json.dumps(pod))
        tolerations = json.loads(made.stdout)["spec"].get("tolerations", [])
        return any(toleration.get("key") == names.PEER for toleration in tolerations)

    def _why_not_ready(self) -> str:
        log = self._vnode.tail("vnode", 8) if self._vnode else ""
        home = self._clusters[0].plane
        state = home.kubectl("get", "nodes,pods", "-o", "wide", check=False).stdout
        return f"the Deployment is not Ready within {_READY_WITHIN_S} s\n{state}\nvnode's log ends:\n{log}"

    def _elapsed_s(self) -> float:
        return time.monotonic() - self._began

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, soft_wrap=True)


def _deployment(peers: int) -> Mapping[str, object]:
    labels = {"app": "hello"}
    container = {
        "name": "hello",
        "image": images.BUSYBOX,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/sh", "-c", 'while true; do echo "$(date) hello from $HOSTNAME"; sleep 1; done'],
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
    }
    spread = {
        "topologyKey": names.PEER,
        "maxSkew": 1,
        "whenUnsatisfiable": "DoNotSchedule",
        # Without it all Pods would go to the virtual node that happens to be there first.
        "minDomains": peers,
        "labelSelector": {"matchLabels": labels},
    }
    pod = {
        "nodeSelector": _SELECTOR,
        "topologySpreadConstraints": [spread],
        "terminationGracePeriodSeconds": 2,
        "containers": [container],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "hello", "namespace": "default"},
        "spec": {
            "replicas": _PODS_PER_PEER * peers,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }
