"""The components of a control plane: their files and their command lines.

Flags whose absence costs an evening are explained where they stand. Pure but for `write_credentials`; called by
`controlplane`, which runs what this describes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vnode.devcluster.pki import Authority, service_account_key, write_kubeconfig, write_private

KUBELET_CLIENT = "kube-apiserver-kubelet-client"


@dataclass(frozen=True)
class Layout:
    """Where everything of one control plane is."""

    name: str
    directory: Path
    url: str
    service_cidr: str
    kubelet_ca: bool
    audit_policy: Path | None
    etcd: str
    etcd_peer: str
    health_ports: Mapping[str, int]

    @property
    def ca(self) -> Path:
        """The file with the CA certificate."""
        return self.directory / "ca.crt"

    @property
    def audit_log(self) -> Path:
        """The file with the apiserver's audit events, where it has a policy for them."""
        return self.directory / "audit.log"


def write_credentials(layout: Layout, authority: Authority) -> None:
    """Write every certificate, key and kubeconfig that the components and the administrator use."""
    directory, issue = layout.directory, authority.issue
    authority.pair.write(directory, "ca")
    front_proxy = Authority(f"{layout.name}-front-proxy-ca")
    front_proxy.pair.write(directory, "front-proxy-ca")
    front_proxy.issue("front-proxy").write(directory, "front-proxy")
    first_service_ip = layout.service_cidr.partition("/")[0].rpartition(".")[0] + ".1"
    names = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost", "127.0.0.1")
    issue("kube-apiserver", hosts=(*names, first_service_ip)).write(directory, "apiserver")
    issue(KUBELET_CLIENT).write(directory, "kubelet-client")
    private, public = service_account_key()
    write_private(directory / "sa.key", private)
    (directory / "sa.pub").write_bytes(public)
    clients = {
        "admin": issue("kubernetes-admin", ["system:masters"]),
        "kube-controller-manager": issue("system:kube-controller-manager", hosts=["127.0.0.1"]),
        "kube-scheduler": issue("system:kube-scheduler", hosts=["127.0.0.1"]),
    }
    for name, client in clients.items():
        client.write(directory, name)
        path = directory / f"{name}.conf"
        write_kubeconfig(path, cluster=layout.name, url=layout.url, ca=authority.cert, client=client)


def flags(layout: Layout, component: str) -> list[str]:
    """The arguments of `etcd`, `kube-apiserver`, `kube-controller-manager` or `kube-scheduler`."""
    match component:
        case "etcd":
            return _etcd(layout)
        case "kube-apiserver":
            return _apiserver(layout)
        case "kube-controller-manager":
            return [*_client_of_apiserver(layout, component), *_controller_manager(layout)]
        case "kube-scheduler":
            return _client_of_apiserver(layout, component)
    raise ValueError(f"no component is named {component}")


def _etcd(layout: Layout) -> list[str]:
    return [
        f"--data-dir={layout.directory / 'etcd'}",
        f"--listen-client-urls={layout.etcd}",
        f"--advertise-client-urls={layout.etcd}",
        f"--listen-peer-urls={layout.etcd_peer}",
        f"--initial-advertise-peer-urls={layout.etcd_peer}",
        f"--initial-cluster=default={layout.etcd_peer}",
        "--unsafe-no-fsync",  # What is lost with the machine is a dev cluster.
        "--log-level=warn",
    ]


def _apiserver(layout: Layout) -> list[str]:
    at = layout.directory
    always = [
        f"--etcd-servers={layout.etcd}",
        "--bind-address=127.0.0.1",
        f"--secure-port={layout.url.rpartition(':')[2]}",
        # The endpoints of the `kubernetes` Service may not be loopback: nobody is to reconcile them.
        "--advertise-address=127.0.0.1",
        "--endpoint-reconciler-type=none",
        f"--service-cluster-ip-range={layout.service_cidr}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--tls-cert-file={at / 'apiserver.crt'}",
        f"--tls-private-key-file={at / 'apiserver.key'}",
        f"--client-ca-file={layout.ca}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={at / 'sa.pub'}",
        f"--service-account-signing-key-file={at / 'sa.key'}",
        # A CA of its own and allowed names: with the clients' CA anybody's certificate could speak for anybody.
        f"--requestheader-client-ca-file={at / 'front-proxy-ca.crt'}",
        "--requestheader-allowed-names=front-proxy",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={at / 'front-proxy.crt'}",
        f"--proxy-client-key-file={at / 'front-proxy.key'}",
        # Logs and exec reach kubelets with these, by address: the nodes' names mean nothing to this machine.
        f"--kubelet-client-certificate={at / 'kubelet-client.crt'}",
        f"--kubelet-client-key={at / 'kubelet-client.key'}",
        "--kubelet-preferred-address-types=InternalIP,Hostname",
    ]
    if layout.kubelet_ca:
        always.append(f"--kubelet-certificate-authority={layout.ca}")
    if layout.audit_policy:
        always += [f"--audit-policy-file={layout.audit_policy}", f"--audit-log-path={layout.audit_log}"]
    return always


def _controller_manager(layout: Layout) -> list[str]:
    return [
        "--use-service-account-credentials",
        f"--service-account-private-key-file={layout.directory / 'sa.key'}",
        f"--root-ca-file={layout.ca}",
        f"--cluster-signing-cert-file={layout.ca}",
        f"--cluster-signing-key-file={layout.directory / 'ca.key'}",
        f"--requestheader-client-ca-file={layout.directory / 'front-proxy-ca.crt'}",
        f"--cluster-name={layout.name}",
        "--horizontal-pod-autoscaler-sync-period=5s",  # 15 s by default: nobody waits for that in a dev cluster
    ]


def _client_of_apiserver(layout: Layout, component: str) -> list[str]:
    kubeconfig = layout.directory / f"{component}.conf"
    return [
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--bind-address=127.0.0.1",
        f"--secure-port={layout.health_ports[component]}",
        f"--tls-cert-file={layout.directory / f'{component}.crt'}",
        f"--tls-private-key-file={layout.directory / f'{component}.key'}",
        "--leader-elect=false",
        # The defaults (20 and 50 a second) would be what a burst of a thousand Pods measures.
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
    ]
