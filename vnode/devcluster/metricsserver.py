"""metrics-server for one control plane, unmodified: what `kubectl top` and autoscaling on CPU need.

It runs as a process beside the others, with the account and rights of its own release manifest (`components.yaml`,
v0.9), and the apiserver's aggregation layer hands `metrics.k8s.io` on to it: by a Service of type ExternalName, since
nothing here routes to Services. Called by tests.
"""

import base64
import json
from typing import Any, Final

from vnode.devcluster.controlplane import ControlPlane
from vnode.devcluster.pki import write_kubeconfig
from vnode.devcluster.processes import ProcessGroup, Startable, free_port, wait_until

_NAME: Final = "metrics-server"
_NAMESPACE: Final = "kube-system"
_RBAC: Final = "rbac.authorization.k8s.io"
RESOLUTION_S: Final = 10  # the least it takes


class MetricsServer(Startable):
    """metrics-server for `cluster`, which must be ready when `start` is called."""

    def __init__(self, cluster: ControlPlane) -> None:
        self._cluster = cluster
        self.directory = cluster.directory / _NAME
        self.processes = ProcessGroup(self.directory)
        self._port = free_port()

    def start(self) -> None:
        """Start it and return when the apiserver serves its API; numbers come after two scrapes. DevClusterError."""
        cluster, authority = self._cluster, self._cluster.authority
        self.directory.mkdir(parents=True, exist_ok=True)
        items = {"apiVersion": "v1", "kind": "List", "items": _objects(self._port, authority.cert)}
        cluster.kubectl("apply", "-f", "-", input=json.dumps(items))
        token = cluster.kubectl("create", "token", _NAME, "-n", _NAMESPACE, "--duration=24h").stdout.strip()
        kubeconfig = write_kubeconfig(
            self.directory / f"{_NAME}.conf", cluster=cluster.name, url=cluster.url, ca=authority.cert, token=token
        )
        cert, key = authority.issue(_NAME, hosts=[f"{_NAME}.{_NAMESPACE}.svc"]).write(self.directory, "serving")
        self.processes.start(
            _NAME,
            [
                cluster.binaries[_NAME],
                *(f"--{prefix}kubeconfig={kubeconfig}" for prefix in ("", "authentication-", "authorization-")),
                "--bind-address=127.0.0.1",
                f"--secure-port={self._port}",
                f"--tls-cert-file={cert}",
                f"--tls-private-key-file={key}",
                f"--metric-resolution={RESOLUTION_S}s",
                f"--kubelet-request-timeout={RESOLUTION_S - 1}s",  # must be less
                "--kubelet-use-node-status-port",
                "--kubelet-preferred-address-types=InternalIP",
                "--kubelet-insecure-tls",  # simulated nodes, and ours as long as nobody has approved its certificate
            ],
        )
        try:
            wait_until(
                f"the API of {_NAME} is served (log {self.processes.log(_NAME)})", self._available, 30, each_s=0.3
            )
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it, and take its API out of the cluster: one that does not answer would slow every discovery."""
        self.processes.stop()
        self._cluster.kubectl("delete", "apiservice", "v1beta1.metrics.k8s.io", "--ignore-not-found", check=False)

    def _available(self) -> bool:
        self.processes.check(_NAME)
        found = self._cluster.get("/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io")
        conditions = found.get("status", {}).get("conditions", ())
        return any(each["type"] == "Available" and each["status"] == "True" for each in conditions)


def _objects(port: int, ca: bytes) -> list[dict[str, Any]]:
    account = {"kind": "ServiceAccount", "name": _NAME, "namespace": _NAMESPACE}
    place = {"name": _NAME, "namespace": _NAMESPACE}
    rules = [
        {"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["pods", "nodes"], "verbs": ["get", "list", "watch"]},
    ]
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": place},
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": f"system:{_NAME}"},
            "rules": rules,
        },
        _binding("ClusterRoleBinding", "ClusterRole", f"system:{_NAME}", account),
        _binding("ClusterRoleBinding", "ClusterRole", "system:auth-delegator", account),
        _binding("RoleBinding", "Role", "extension-apiserver-authentication-reader", account),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": place,
            "spec": {"type": "ExternalName", "externalName": "localhost"},
        },
        {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": "v1beta1.metrics.k8s.io"},
            "spec": {
                "group": "metrics.k8s.io",
                "version": "v1beta1",
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
                "caBundle": base64.b64encode(ca).decode(),
                "service": {**place, "port": port},
            },
        },
    ]


def _binding(kind: str, role_kind: str, role: str, subject: dict[str, str]) -> dict[str, Any]:
    metadata = {"name": f"{_NAME}:{role.removeprefix('system:')}"}
    if kind == "RoleBinding":
        metadata["namespace"] = _NAMESPACE
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": kind,
        "metadata": metadata,
        "roleRef": {"apiGroup": _RBAC, "kind": role_kind, "name": role},
        "subjects": [subject],
    }
