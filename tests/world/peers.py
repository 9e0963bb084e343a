"""Peer objects as a platform team makes them: a Secret and a Peer, credentials at the peer that can be taken away."""

import itertools
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from tests.expect import eventually
from tests.world.api import Api, Json, Refusal
from tests.world.vnodes import condition
from vnode import names, roles
from vnode.devcluster.cluster import Cluster

NAMESPACE = roles.NAMESPACE  # where the shipped role lets vnode read Secrets
_number = itertools.count(1)


class Account:
    """A ServiceAccount at a peer with every right, and a token of it."""

    def __init__(self, cluster: Cluster) -> None:
        self._plane = cluster.plane
        self.name = f"vnode-{next(_number)}"
        self._plane.kubectl("-n", "default", "create", "serviceaccount", self.name)
        role = ("--clusterrole=cluster-admin", f"--serviceaccount=default:{self.name}")
        self._plane.kubectl("create", "clusterrolebinding", self.name, *role)
        self.token = self._plane.kubectl("-n", "default", "create", "token", self.name).stdout.strip()

    def kubeconfig(self, server: str = "") -> str:
        """A kubeconfig with the token; `server`: reached there instead."""
        raw = yaml.safe_load(self._plane.kubeconfig.read_text())
        raw["users"][0]["user"] = {"token": self.token}
        raw["clusters"][0]["cluster"]["server"] = server or self._plane.url
        return yaml.safe_dump(raw)

    def revoke(self) -> None:
        """Delete the account: the token is worth nothing from then on."""
        self._plane.kubectl("-n", "default", "delete", "serviceaccount", self.name)
        self._plane.kubectl("delete", "clusterrolebinding", self.name)


class Relay:
    """A way to a cluster's apiserver that can be cut for good."""

    def __init__(self, cluster: Cluster) -> None:
        self._target = ("127.0.0.1", int(cluster.plane.url.rpartition(":")[2]))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, name="relay", daemon=True).start()

    def cut(self) -> None:
        """Refuse whoever comes from now on, and break what there is."""
        for each in (self._listener, *self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):  # the listener is closed: that is the end
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                self._open |= {near, far}
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._copy, args=(one, other), name="relay", daemon=True).start()

    def _copy(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)


class Peers:
    """The Peer objects of one home cluster."""

    def __init__(self, home: Cluster) -> None:
        self.api = Api(home.plane)
        self.plane = home.plane
        self._made: list[str] = []

    def create(self, name: str, kubeconfig: str, **spec: Any) -> None:
        """A Secret of that name with the kubeconfig, and a Peer that refers to it."""
        self.secret(name, kubeconfig)
        self._made.append(name)
        self.api.create(peer(name, **spec))

    def secret(self, name: str, kubeconfig: str) -> None:
        """Create or change the Secret."""
        body: Json = {"kind": "Secret", "metadata": {"name": name}, "stringData": {"kubeconfig": kubeconfig}}
        try:
            self.api.create(body, NAMESPACE)
        except Refusal as refusal:
            if refusal.code != 409:
                raise
            self.api.patch("Secret", NAMESPACE, name, {"stringData": body["stringData"]})

    def find(self, name: str) -> Json | None:
        """The Peer, or None."""
        return self.api.find("Peer", "", name)

    def condition(self, name: str, kind: str) -> tuple[str, str, str]:
        """Status, reason and message of a condition."""
        found = condition(self.find(name), kind)
        return found["status"], found["reason"], found["message"]

    def wait(self, name: str, kind: str, status: str, reason: str, limit_s: float = 30) -> str:
        """The message of a condition once it is `status` for `reason`."""

        def there() -> str:
            found = self.condition(name, kind)
            assert found[:2] == (status, reason), found
            return found[2] or "-"

        return eventually(f"{name} is {kind}={status}, {reason}", there, limit_s)

    def wait_ready(self, name: str, limit_s: float = 40) -> Json:
        """The Peer once its Node is Ready."""
        self.wait(name, "NodeReady", "True", names.VNODE_READY, limit_s)
        return self.api.get("Peer", "", name)

    def delete(self, name: str) -> None:
        """As `kubectl delete peer --wait=false`."""
        self.api.delete("Peer", "", name)

    def wait_gone(self, name: str, limit_s: float = 60) -> None:
        """Return once it is gone."""
        eventually(f"{name} is gone", lambda: self.find(name) is None, limit_s)

    def clean(self) -> None:
        """Have everything made here go, whatever state it is in."""
        gone_at_once = {"metadata": {"annotations": {names.ABANDON_AFTER: "0s"}}}
        for name in self._made:
            if self.find(name) is not None:
                self.api.patch("Peer", "", name, gone_at_once)
                self.delete(name)
        for name in self._made:
            self.wait_gone(name)
            self.api.delete("Secret", NAMESPACE, name)
        self._made.clear()


def peer(name: str, **spec: Any) -> Json:
    """A Peer whose Secret has its name."""
    body = {"secretRef": {"name": name}, **spec}
    return {"apiVersion": "vnode.dev/v1alpha1", "kind": "Peer", "metadata": {"name": name}, "spec": body}


def install(home: Cluster, crd: Path) -> None:
    """The CRD, as deploy/ has it."""
    home.plane.kubectl("apply", "-f", crd)
    home.plane.kubectl("wait", "--for=condition=Established", "crd/peers.vnode.dev", "--timeout=30s")
