"""Accounts and rights made by the commands: what they may do, what they may not, and how their tokens go on."""

import asyncio
import base64
import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from tests.expect import eventually
from tests.world.accounts import DEPLOY, REFUSED, kubeconfig
from tests.world.api import Api
from tests.world.manifests import bound, config_map, secret
from tests.world.vnodes import Space, Vnode, run_cli
from vnode import names, roles
from vnode.config import default_cluster_name
from vnode.devcluster.cluster import Cluster
from vnode.kube.client import Client
from vnode.kube.credentials import from_kubeconfig
from vnode.kube.objects import utc_now
from vnode.kubelet.certificate import request_manifest, signing_request
from vnode.peers.renewal import TokenRenewal, in_file
from vnode.telemetry.metrics import Metrics

TEAMS = ("team-a", f"{REFUSED}-team")


@pytest.fixture(scope="module")
def teams(peer_b: Cluster) -> Iterator[Api]:
    """Two namespaces at the peer, one of them with a quota."""
    api = Api(peer_b.plane)
    for name in TEAMS:
        api.create({"kind": "Namespace", "metadata": {"name": name}})
    hard = {"requests.cpu": "3", "requests.memory": "2Gi", "pods": "7"}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "all"}, "spec": {"hard": hard}}
    peer_b.plane.kubectl("-n", TEAMS[0], "create", "-f", "-", input=json.dumps(quota))
    yield api
    for name in TEAMS:
        api.delete("Namespace", "", name)


@pytest.fixture(scope="module")
def account(teams: Api, peer_b: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kubeconfig that `vnode peer kubeconfig --namespaces` made."""
    path = tmp_path_factory.mktemp("join") / "few.conf"
    flags = ("--namespaces", ",".join(TEAMS), "--peer-kubeconfig", peer_b.plane.kubeconfig, "-o", path)
    done = run_cli("peer", "kubeconfig", "few", *flags)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert f"will make at {peer_b.plane.url}:" in done.stderr
    assert "  Role team-a/vnode-peer: get, list, watch, create, patch, delete pods; " in done.stderr
    return path


def test_a_dry_run_prints_what_would_be_made_and_makes_nothing(peer_a: Cluster) -> None:
    flags = ("--namespaces", "default,kube-public", "--peer-kubeconfig", peer_a.plane.kubeconfig, "--dry-run")
    done = run_cli("peer", "kubeconfig", "edge", *flags)
    made = list(yaml.safe_load_all(done.stdout))
    assert (done.returncode, made) == (0, roles.peer_namespaces(["default", "kube-public"]))
    assert {item["kind"] for item in made} == {"ServiceAccount", "Role", "RoleBinding"}  # nothing cluster-wide
    assert Api(peer_a.plane).find("ServiceAccount", "default", roles.ACCOUNT) is None


@pytest.mark.parametrize("flags", [(), ("--all", "--namespaces", "a"), ("--namespaces", ",")])
def test_the_scope_must_be_said_once(flags: tuple[str, ...]) -> None:
    done = run_cli("peer", "kubeconfig", "edge", *flags)
    assert (done.returncode, done.stderr) == (2, "vnode: expected --all, or --namespaces with at least one name\n")


def test_the_kubeconfig_is_private_and_speaks_for_the_account_alone(account: Path, peer_b: Cluster) -> None:
    assert account.stat().st_mode & 0o777 == 0o600
    assert _whoami(peer_b, account) == "system:serviceaccount:team-a:vnode"
    for verb, resource in (("list", "nodes"), ("create", "namespaces"), ("list", "secrets")):
        asked = peer_b.plane.kubectl("--kubeconfig", account, "auth", "can-i", verb, resource, "-A", check=False)
        assert asked.stdout.strip() == "no"


def test_a_few_namespaces_are_enough_for_a_node_and_its_pods(
    account: Path, peer_b: Cluster, own_vnode: Callable[..., Vnode], new_space: Callable[..., Space], teams: Api
) -> None:
    one, two, three = (new_space(peer_b, "few") for _ in range(3))
    one.remote, two.remote = TEAMS
    mapped = {"scope": "mapped", "map": {one.name: one.remote, two.name: two.remote}}
    alone = own_vnode({"name": "few", "kubeconfig": str(account), "namespaces": mapped})
    checked = run_cli("check", "--config", alone.config, "--kubeconfig", peer_b.plane.kubeconfig)
    rows = [line.split("\t")[1:3] for line in checked.stdout.splitlines() if line.startswith("few\t")]
    assert ["pods in team-a", "ok"] in rows
    assert {verdict for _, verdict in rows} == {"ok"}
    alone.start().wait_ready()
    quota = {"cpu": "3", "memory": "2Gi", "pods": "7"}
    eventually(
        "what the quota leaves is what the node offers",
        lambda: quota.items() <= one.home.get("Node", "", "few")["status"]["allocatable"].items(),
    )
    asks = {"requests": {"cpu": "100m", "memory": "10Mi"}}
    container = {"name": "main", "image": "simulated:1", "resources": asks}
    one.create(config_map("settings", {"mode": "a"}), secret("keys", {"token": "t"}))
    uses = {**container, "envFrom": [{"configMapRef": {"name": "settings"}}, {"secretRef": {"name": "keys"}}]}
    one.create(bound("user", "few", containers=[uses]))
    two.create(bound("other", "few"))
    three.create(bound("stranger", "few"))
    one.wait_ready("user")
    two.wait_ready("other")
    assert teams.get("ConfigMap", one.remote, "settings")["data"] == {"mode": "a"}
    three.wait_refused("stranger", names.NAMESPACE_NOT_OFFLOADED)
    assert "forbidden" not in alone.log  # nothing was asked for that is not given
    # What the peer forbids from now on is told where it concerns somebody.
    teams.delete("RoleBinding", two.remote, "vnode-peer")
    two.create(bound("late", "few"))
    assert "pods is forbidden" in two.wait_refused("late", names.REMOTE_REFUSED)
    one.home.delete("Pod", one.name, "user")
    eventually("what it needed goes with it", lambda: not teams.find("Secret", one.remote, "keys"))


def test_a_peer_joins_and_leaves_by_one_command_each(home: Cluster, peer_b: Cluster, teams: Api, account: Path) -> None:
    assert account.exists()
    home.plane.kubectl("apply", "-f", DEPLOY / "base" / "crd.yaml")
    api = Api(home.plane)
    name = f"vnode-{default_cluster_name(api.get('Namespace', '', 'kube-system')['metadata']['uid'])}"
    both = ("--kubeconfig", home.plane.kubeconfig, "--peer-kubeconfig", peer_b.plane.kubeconfig)
    done = run_cli("join", "few-by-one", "--namespaces", f"shop={TEAMS[0]}", *both)
    assert done.returncode == 0, done.stderr
    peer = home.plane.get("/apis/vnode.dev/v1alpha1/peers/few-by-one")["spec"]
    assert (peer["namespaces"]["scope"], peer["namespaces"]["map"]) == ("mapped", {"shop": TEAMS[0]})
    kept = api.get("Secret", roles.NAMESPACE, peer["secretRef"]["name"])["data"]["kubeconfig"]
    path = home.plane.directory / "joined.conf"
    path.write_bytes(base64.b64decode(kept))
    assert _whoami(peer_b, path) == f"system:serviceaccount:{TEAMS[0]}:{name}"
    # Another home's account is none of this one's business.
    assert teams.find("ServiceAccount", TEAMS[0], roles.ACCOUNT)
    done = run_cli("leave", "few-by-one", *both)
    assert done.returncode == 0, done.stderr
    assert api.find("Secret", roles.NAMESPACE, peer["secretRef"]["name"]) is None
    assert teams.find("ServiceAccount", TEAMS[0], name) is None
    assert teams.find("ServiceAccount", TEAMS[0], roles.ACCOUNT)
    again = run_cli("leave", "few-by-one", *both)
    assert (again.returncode, again.stderr) == (1, 'vnode: peers.vnode.dev "few-by-one" not found\n')


def test_a_token_renews_itself_by_its_own_right(account: Path, peer_b: Cluster) -> None:
    before = account.read_text()
    asyncio.run(_renew(account))
    assert account.read_text() != before
    assert _whoami(peer_b, account) == "system:serviceaccount:team-a:vnode"
    assert account.stat().st_mode & 0o777 == 0o600


def test_bindings_for_selected_namespaces_are_printed_or_applied(space: Space) -> None:
    api, flags = space.home, ("--kubeconfig", space.home.plane.kubeconfig)
    api.patch("Namespace", "", space.name, {"metadata": {"labels": {"team": "web"}}})
    api.delete("RoleBinding", space.name, "vnode-offload")
    printed = run_cli("rbac", "--selector", "team=web", *flags)
    assert list(yaml.safe_load_all(printed.stdout)) == roles.offloading([space.name])
    assert api.find("RoleBinding", space.name, "vnode-offload") is None
    applied = run_cli("rbac", "--namespaces", space.name, "--apply", *flags)
    assert applied.stderr == f"applied RoleBinding {space.name}/vnode-offload\n"
    assert api.get("RoleBinding", space.name, "vnode-offload")["roleRef"]["name"] == "vnode-offload"


def test_the_guard_keeps_vnode_from_nodes_that_are_not_virtual(vnode: Vnode, home: Cluster) -> None:
    assert vnode.nodes
    name = _real_nodes(home)[0]
    for arguments in (("label", "node", name, "x=y"), ("delete", "node", name), ("create", "-f", "-")):
        node = json.dumps({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "like-a-real-one"}})
        refused = _as_vnode(home, *arguments, input=node if "create" in arguments else None)
        assert "is no virtual node of vnode" in refused
    assert "kubelet serving certificates only" in _as_vnode(home, "create", "-f", "-", input=_signing_request("edge-a"))
    own = request_manifest("edge-a", signing_request("edge-a", ["edge-a"])[1])
    own["metadata"] = {"name": "anothers", "labels": own["metadata"]["labels"]}
    home.plane.kubectl("create", "-f", "-", input=json.dumps(own))
    assert "its own certificate requests only" in _as_vnode(home, "delete", "csr", "anothers")
    home.plane.kubectl("delete", "csr", "anothers")


def test_the_guard_can_be_told_which_nodes_vnode_serves(space: Space, home: Cluster) -> None:
    space.create(bound("theirs", _real_nodes(home)[0]), bound("ours", "edge-a"))
    space.wait_ready("ours")
    virtual = Api(home.plane).list("Node", labels=names.PEER)
    ours = [flag for node in virtual for flag in ("--node", node["metadata"]["name"])]
    applied = run_cli("rbac", *ours, "--apply", "--kubeconfig", home.plane.kubeconfig)
    assert applied.returncode == 0, applied.stderr
    try:
        refused = _as_vnode(home, "delete", "pod", "theirs", "-n", space.name, "--grace-period=0", "--force")
        assert "vnode does not serve a node named" in refused
        space.create(bound("more", "edge-a"))
        space.wait_ready("more")
        space.home.delete("Pod", space.name, "ours")
        eventually("ours still goes", lambda: not space.pod("ours"))
    finally:
        home.plane.kubectl("apply", "-f", DEPLOY / "base" / "rbac.yaml")


async def _renew(path: Path) -> None:
    """One renewal, as it would be in three weeks."""
    kept, write = asyncio.Event(), in_file(str(path), "")

    async def keep(new: str) -> None:
        await write(new)
        kept.set()

    credentials = from_kubeconfig(str(path))
    peer = Client(credentials, "few", Metrics())
    renewal = TokenRenewal(peer, credentials, keep, lambda: utc_now() + timedelta(days=21))
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        task = group.create_task(renewal.run())
        await kept.wait()
        task.cancel()
    await peer.close()


def _real_nodes(cluster: Cluster) -> list[str]:
    found = (node["metadata"] for node in Api(cluster.plane).list("Node"))
    return [meta["name"] for meta in found if names.PEER not in meta["labels"]]


def _as_vnode(cluster: Cluster, *arguments: str, input: str | None = None) -> str:  # noqa: A002
    done = cluster.plane.kubectl("--kubeconfig", kubeconfig(cluster.plane), *arguments, check=False, input=input)
    assert done.returncode, done.stdout
    return done.stderr


def _whoami(cluster: Cluster, path: Path) -> str:
    found = cluster.plane.kubectl("--kubeconfig", path, "auth", "whoami", "-o", "json")
    return str(json.loads(found.stdout)["status"]["userInfo"]["username"])


def _signing_request(node: str) -> str:
    """A request that a node may sign, to a signer whose certificates speak for clients."""
    manifest = request_manifest(node, signing_request(node, [node])[1])
    manifest["metadata"] = {"name": "wide", "labels": manifest["metadata"]["labels"]}
    manifest["spec"] |= {"signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"]}
    return json.dumps(manifest)
