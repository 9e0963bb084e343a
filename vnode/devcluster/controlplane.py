"""A real control plane on loopback: etcd, kube-apiserver, kube-controller-manager, kube-scheduler.

Ready in about six seconds, 520 MB at rest. It has no node: `kwok` and `realnode` add some. Not for anything that must
last: etcd does not sync to disk and speaks plain HTTP on loopback. Called by the demo and by tests, which may kill and
start single components. The flags are in `components`.
"""

import json
import os
import ssl
import subprocess
import urllib.request
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from vnode.devcluster.build import Binaries
from vnode.devcluster.components import KUBELET_CLIENT, Layout, flags, write_credentials
from vnode.devcluster.errors import DevClusterError
from vnode.devcluster.pki import Authority, write_kubeconfig
from vnode.devcluster.processes import ProcessGroup, Startable, free_port, wait_until

# Fewer garbage collections for more memory: on two cores a burst waits for them.
_LAZY_GC = {"GOGC": "200"}

# What lets the apiserver's own client reach every kubelet: in a cluster made by kubeadm it is an administrator.
_KUBELET_API_BINDING = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRoleBinding",
    "metadata": {"name": KUBELET_CLIENT},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:kubelet-api-admin"},
    "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": KUBELET_CLIENT}],
}


def start_together(parts: Iterable[Startable]) -> None:
    """Start all `parts` at once; when one fails all are stopped and its error is raised."""
    parts = list(parts)
    with ThreadPoolExecutor(max_workers=max(len(parts), 1)) as threads:
        starts = [threads.submit(part.start) for part in parts]
    errors = [error for start in starts if (error := start.exception())]
    if errors:
        for part in parts:
            part.stop()
        raise errors[0]


class ControlPlane(Startable):
    """One control plane, its state below `directory`; `start` and `stop` it, or use it in a `with`.

    Distinct `service_cidr` (and `pod_cidr`, that nodes take their Pods' addresses from) tell clusters apart. With
    `kubelet_ca` the apiserver accepts only kubelets whose certificate the cluster's CA signed; with `audit_policy` it
    writes what that file asks for to `audit_log`.
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        binaries: Binaries,
        *,
        service_cidr: str = "10.96.0.0/16",
        pod_cidr: str = "10.128.0.0/16",
        kubelet_ca: bool = False,
        audit_policy: Path | None = None,
    ) -> None:
        self.name = name
        self.directory = directory
        self.binaries = binaries
        self.service_cidr = service_cidr
        self.pod_cidr = pod_cidr
        self.url = f"https://127.0.0.1:{free_port()}"
        self.authority = Authority(f"{name}-ca")
        self.processes = ProcessGroup(directory)
        self._layout = Layout(
            name=name,
            directory=directory,
            url=self.url,
            service_cidr=service_cidr,
            kubelet_ca=kubelet_ca,
            audit_policy=audit_policy,
            etcd=f"http://127.0.0.1:{free_port()}",
            etcd_peer=f"http://127.0.0.1:{free_port()}",
            health_ports={"kube-controller-manager": free_port(), "kube-scheduler": free_port()},
        )

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig file."""
        return self.directory / "admin.conf"

    @property
    def ca(self) -> Path:
        """The file with the cluster's CA certificate, which signs the apiserver, its clients and kubelets."""
        return self.directory / "ca.crt"

    @property
    def audit_log(self) -> Path:
        """The apiserver's audit events, a JSON object a line."""
        return self._layout.audit_log

    def start(self) -> None:
        """Start everything and return when the cluster takes Pods. Raises DevClusterError."""
        self.directory.mkdir(parents=True, exist_ok=True)
        write_credentials(self._layout, self.authority)
        try:
            for component in ("etcd", "kube-apiserver"):
                self.start_component(component)
            self._wait_for_apiserver(60)
            # These two give up when they meet no apiserver within ten seconds: they come after it.
            for component in ("kube-controller-manager", "kube-scheduler"):
                self.start_component(component)
            self.kubectl("apply", "-f", "-", input=json.dumps(_KUBELET_API_BINDING))
            self.wait_ready(60)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End all processes; the directory stays, with its logs."""
        self.processes.stop()

    def kill(self, component: str) -> None:
        """End one component as a crash would: `etcd`, `kube-apiserver`, …"""
        self.processes.kill(component)

    def start_component(self, component: str) -> None:
        """Start one component that is not running, on the ports and with the data it had."""
        argv: list[str | Path] = [self.binaries[component], *flags(self._layout, component)]
        self.processes.start(component, argv, env={**_LAZY_GC, **os.environ})

    def restart_apiserver(self, limit_s: float = 60) -> None:
        """Kill the apiserver, start it on the same port and data, and return when it answers."""
        self.kill("kube-apiserver")
        self.start_component("kube-apiserver")
        self._wait_for_apiserver(limit_s)

    def wait_ready(self, limit_s: float = 60) -> None:
        """Return when all components are healthy and Pods can be created in `default`. Raises DevClusterError."""
        self._wait_for_apiserver(limit_s)
        for component, port in self._layout.health_ports.items():
            self._wait_for(component, f"https://127.0.0.1:{port}/healthz", limit_s)
        self._wait_for(
            "kube-controller-manager", f"{self.url}/api/v1/namespaces/default/serviceaccounts/default", limit_s
        )

    def kubeconfig_for(self, user: str, groups: Iterable[str] = ()) -> Path:
        """A kubeconfig file whose client certificate says `user` in `groups`; rights are RBAC's business."""
        path = self.directory / f"{user.replace(':', '-').replace('/', '-')}.conf"
        client = self.authority.issue(user, groups)
        return write_kubeconfig(path, cluster=self.name, url=self.url, ca=self.authority.cert, client=client)

    def kubectl(
        self,
        *args: str | Path,
        input: str | None = None,  # noqa: A002 (as subprocess.run names it)
        check: bool = True,
        timeout: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """What `kubectl ARGS` as administrator printed; with `check` DevClusterError when it fails."""
        done = subprocess.run(
            [*self._kubectl, *args],
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env={**os.environ, "KUBERC": "off"},
        )
        if check and done.returncode:
            command = " ".join(map(str, args))
            raise DevClusterError(f"kubectl {command} in {self.name}: {done.stderr.strip() or done.stdout.strip()}")
        return done

    def get(self, path: str) -> dict[str, Any]:
        """The JSON object at `path` (`/api/v1/nodes`), read as administrator, much cheaper than by kubectl.

        Raises DevClusterError when the apiserver does not answer or refuses.
        """
        try:
            content: dict[str, Any] = json.loads(self._request(f"{self.url}{path}"))
        except OSError as error:
            raise DevClusterError(f"GET {path} in {self.name}: {error}") from error
        return content

    @property
    def _kubectl(self) -> list[str | Path]:
        # Its caches go where everything of the cluster goes, not into the user's home.
        cache = self.directory / "kubectl-cache"
        return [self.binaries["kubectl"], "--kubeconfig", self.kubeconfig, "--cache-dir", cache]

    def _wait_for_apiserver(self, limit_s: float) -> None:
        self._wait_for("kube-apiserver", f"{self.url}/readyz", limit_s)

    def _wait_for(self, component: str, url: str, limit_s: float) -> None:
        def answers() -> bool:
            self.processes.check(component)
            try:
                self._request(url)
            except OSError:  # URLError and HTTPError are: not up yet, or up and not ready.
                return False
            return True

        log = self.processes.log(component)
        wait_until(f"{component} of {self.name} answers at {url} (log {log})", answers, limit_s)

    def _request(self, url: str) -> bytes:
        trust = ssl.create_default_context(cafile=str(self.ca))
        trust.load_cert_chain(self.directory / "admin.crt", self.directory / "admin.key")
        with urllib.request.urlopen(url, timeout=10, context=trust) as answer:  # noqa: S310 (our own https URL)
            content: bytes = answer.read()
            return content
