"""What `deploy/` ships, by kustomize and by helm: the same objects, and real apiservers take them."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.expect import eventually
from tests.world.accounts import DEPLOY
from tests.world.api import Api, Json
from vnode.devcluster.build import Binaries
from vnode.devcluster.cluster import Cluster
from vnode.roles import NAMESPACE

Helm = Callable[..., str]
RELEASE = "vnode-by-helm"


@pytest.fixture(scope="module")
def helm(binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """The real helm, with state of its own."""
    state = {f"HELM_{name}_HOME": str(tmp_path_factory.mktemp("helm")) for name in ("CACHE", "CONFIG", "DATA")}

    def run(*arguments: str | Path) -> str:
        command = [binaries["helm"], *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=120, env={**os.environ, **state}
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_chart_and_kustomization_render_the_same_objects(helm: Helm, home: Cluster) -> None:
    rendered = helm("template", "vnode", DEPLOY / "chart", "-n", NAMESPACE, "--include-crds", "--kube-version", "1.37")
    chart, base = by_name(rendered), by_name(home.plane.kubectl("kustomize", DEPLOY / "base").stdout)
    del base["Namespace", "", NAMESPACE]  # helm makes it, by --create-namespace
    assert chart == base


def test_the_base_is_taken_and_its_pod_is_a_restricted_one(home: Cluster) -> None:
    home.plane.kubectl("apply", "--dry-run=server", "-k", DEPLOY / "base")
    home.plane.kubectl("apply", "-k", DEPLOY / "base")
    api = Api(home.plane)
    labels = api.get("Namespace", "", NAMESPACE)["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    eventually("the Pod is let in", lambda: api.list("Pod", NAMESPACE, "app.kubernetes.io/name=vnode"))
    api.delete("Deployment", NAMESPACE, "vnode")


@pytest.mark.parametrize("variant", ["cluster", "kubelets", "namespace"])
def test_what_a_peers_administrator_applies_is_taken(variant: str, peer_b: Cluster) -> None:
    rendered = peer_b.plane.kubectl("kustomize", DEPLOY / "peer" / variant).stdout
    kinds = {kind for kind, *_ in by_name(rendered)}
    if variant == "namespace":
        assert kinds == {"ServiceAccount", "Role", "RoleBinding"}  # nothing cluster-wide
        peer_b.plane.kubectl("create", "namespace", "offload")
    peer_b.plane.kubectl("apply", "--dry-run=server", "-f", "-", input=rendered)
    if variant == "namespace":
        Api(peer_b.plane).delete("Namespace", "", "offload")


def test_the_chart_installs_with_peers_namespaces_and_nodes_and_goes(
    helm: Helm, peer_b: Cluster, tmp_path: Path
) -> None:
    kubeconfig, api = peer_b.plane.kubeconfig, Api(peer_b.plane)
    values = {
        "image": {"repository": "registry.example/vnode", "tag": "7"},
        "namespaces": ["default"],
        "nodes": ["edge"],
        "peers": [{"name": "edge", "kubeconfig": "text", "spec": {"network": {"podIPs": "flat"}}}],
        "tolerations": [{"operator": "Exists"}],
    }
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(values))
    where = ("-n", RELEASE, "--kubeconfig", kubeconfig)
    helm("install", "vnode", DEPLOY / "chart", "--create-namespace", "-f", tmp_path / "values.yaml", *where)
    (container,) = api.get("Deployment", RELEASE, "vnode")["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry.example/vnode:7"
    assert api.get("Secret", RELEASE, "vnode-peer-edge")["data"] == {"kubeconfig": "dGV4dA=="}
    peer = peer_b.plane.get("/apis/vnode.dev/v1alpha1/peers/edge")["spec"]
    assert (peer["secretRef"]["name"], peer["network"]) == ("vnode-peer-edge", {"podIPs": "flat"})
    (subject,) = api.get("RoleBinding", "default", "vnode-offload")["subjects"]
    assert subject["namespace"] == RELEASE
    rules = api.get("ClusterRole", "", "vnode-home")["rules"]
    assert [rule["resourceNames"] for rule in rules if "resourceNames" in rule] == [["edge"]]
    renewed = {"data": {"kubeconfig": "bmV3ZXI="}}
    api.patch("Secret", RELEASE, "vnode-peer-edge", renewed)
    helm("upgrade", "vnode", DEPLOY / "chart", "-f", tmp_path / "values.yaml", *where)
    helm("uninstall", "vnode", *where)
    assert api.get("Secret", RELEASE, "vnode-peer-edge")["data"] == renewed["data"], "an old token was put back"
    assert api.find("ClusterRole", "", "vnode-home") is None
    api.delete("Namespace", "", RELEASE)


def by_name(text: str) -> dict[tuple[str, str, str], Json]:
    """Objects by kind, namespace and name; how a text is folded over lines does not count."""
    found = {}
    for item in yaml.safe_load_all(text):
        if item:
            meta = item["metadata"]
            found[item["kind"], meta.get("namespace", ""), meta["name"]] = unfolded(item)
    return found


def unfolded(value: Any) -> Any:
    """The value with all white space in texts made one blank."""
    match value:
        case dict():
            return {key: unfolded(item) for key, item in value.items()}
        case list():
            return [unfolded(item) for item in value]
        case str():
            return " ".join(value.split())
        case _:
            return value
