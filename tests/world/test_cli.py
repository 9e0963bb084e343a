"""The command line as people meet it: every mistake is one line that says what to do, never a traceback."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.expect import eventually
from tests.world.api import Api
from tests.world.vnodes import Vnode, peer_config, run_cli
from vnode import names
from vnode.devcluster.cluster import Cluster

Make = Callable[..., Vnode]
Json = dict[str, Any]


def test_help_teaches() -> None:
    first = run_cli("--help")
    assert first.returncode == 0
    for command in ("run", "check", "diff", "remove", "demo"):
        assert command in first.stdout
    run = run_cli("run", "--help").stdout
    for flag in ("--config", "--peer", "--kubeconfig", "--deregister-on-exit", "--admin-port", "--log-format"):
        assert flag in run
    assert "NAME=KUBECONFIG[#CONTEXT]" in run
    assert "go on running when this process stops" in run
    assert run_cli("--version").stdout.startswith("vnode ")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"lables": {}}, "lables: unknown key; known: "),
        ({"peers": [{"name": "x"}]}, "peers[0].kubeconfig: missing"),
        ({"peers": "x"}, "peers: expected list of mappings, got 'x'"),
        ({"peers": [{"name": "x", "kubeconfig": "absent.conf"}]}, "peers[0].kubeconfig: expected a readable text file"),
        ({"peers": [{"name": "A_B", "kubeconfig": "good.conf"}]}, "peers[0].name: "),
        ({"peers": [{"name": "x", "kubeconfig": "good.conf", "context": "no"}]}, "peers[0].context: expected one of "),
        ({"peers": [{"name": "x", "kubeconfig": "good.conf"}] * 2}, "peers[1].name: expected another name"),
        (
            {"peers": [{"name": name, "kubeconfig": "good.conf"} for name in "xy"]},
            "peers[1].namespaces: expected names",
        ),
        ({"peers": []}, "peers: expected at least one peer"),
        ({"kubelet": {"address": "here"}}, "kubelet.address: expected an IP address"),
    ],
)
@pytest.mark.parametrize("command", ["run"])
def test_a_wrong_configuration_is_one_line_with_file_and_key(
    change: Json, told: str, command: str, peer_a: Cluster, tmp_path: Path
) -> None:
    (tmp_path / "good.conf").symlink_to(peer_a.plane.kubeconfig)
    config = tmp_path / "vnode.yaml"
    config.write_text(yaml.safe_dump({"peers": [{"name": "edge", "kubeconfig": "good.conf"}], **change}))
    done = run_cli(command, "--config", config)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"vnode: {config}: {told}")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--config", "absent.yaml"], "vnode: absent.yaml: expected a readable file: No such file or directory"),
        (["--peer", "edge"], "vnode: --peer edge: expected NAME=KUBECONFIG[#CONTEXT]"),
        (
            ["--peer", "edge=/absent.conf"],
            "vnode: --peer edge: kubeconfig: expected a readable text file, /absent.conf",
        ),
        ([], "vnode: peers: expected at least one peer"),
    ],
)
def test_wrong_flags_are_one_line_too(arguments: list[str], told: str) -> None:
    for command in ("run", "check"):
        done = run_cli(command, *arguments)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert line.startswith(told)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--namespace", "A"], "vnode: --namespace: expected a DNS-1123 label"),
        (["--deregister-on-exit"], "vnode: --deregister-on-exit: not with --peer-objects"),
    ],
)
def test_wrong_flags_beside_peer_objects_are_one_line(arguments: list[str], told: str) -> None:
    done = run_cli("run", "--peer-objects", *arguments)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(told)


def test_check_shows_what_would_work(home: Cluster, peer_a: Cluster, peer_b: Cluster) -> None:
    flags = ["--peer", f"one={peer_a.plane.kubeconfig}#peer-a", "--peer", f"two={peer_b.plane.kubeconfig}"]
    done = run_cli("check", *flags, "--kubeconfig", home.plane.kubeconfig)
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert {row[0] for row in rows} == {"home", "one", "two"}
    assert {row[2] for row in rows} == {"ok"}
    assert ["home", "reachable", "ok", home.plane.get("/version")["gitVersion"]] in rows


def test_check_names_each_missing_permission(home: Cluster, peer_a: Cluster) -> None:
    api = Api(peer_a.plane)
    rules = [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch", "create", "patch"]},
        {"apiGroups": [""], "resources": ["namespaces", "configmaps", "secrets"], "verbs": ["*"]},
        {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
    ]
    api.create({"kind": "ClusterRole", "metadata": {"name": "world-limited"}, "rules": rules})
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "world-limited"}
    who = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "limited"}
    api.create(
        {"kind": "ClusterRoleBinding", "metadata": {"name": "world-limited"}, "roleRef": role, "subjects": [who]}
    )
    limited = peer_a.plane.kubeconfig_for("limited")
    done = run_cli("check", "--peer", f"edge={limited}", "--kubeconfig", home.plane.kubeconfig)
    assert (done.returncode, done.stderr) == (1, "")
    rows = {tuple(line.split("\t")[:3]): line.split("\t")[3] for line in done.stdout.splitlines()}
    assert rows["edge", "pods", "missing"] == "may not delete (mirror Pods)"
    assert rows["edge", "nodes", "optional"].startswith("may not list, watch (capacity); without: ")
    assert ("edge", "namespaces", "ok") in rows


def test_check_tells_a_credential_that_is_not_accepted(home: Cluster, peer_a: Cluster, tmp_path: Path) -> None:
    stranger = _with_token(peer_a, tmp_path / "stranger.conf", "not-a-token")
    done = run_cli("check", "--peer", f"edge={stranger}", "--kubeconfig", home.plane.kubeconfig)
    assert (done.returncode, done.stderr) == (1, "")
    assert "edge\tcredential\tmissing\tnot accepted" in done.stdout
    assert "not-a-token" not in done.stdout


def test_check_tells_who_does_not_answer(home: Cluster, peer_a: Cluster, tmp_path: Path) -> None:
    nobody = _moved(peer_a, tmp_path / "nobody.conf")
    there = run_cli("check", "--peer", f"edge={nobody}", "--kubeconfig", home.plane.kubeconfig)
    assert (there.returncode, there.stderr) == (1, "")
    assert "edge\treachable\tmissing\t" in there.stdout
    here = run_cli("check", "--peer", f"edge={peer_a.plane.kubeconfig}", "--kubeconfig", nobody)
    assert (here.returncode, here.stderr) == (1, "")
    assert "home\treachable\tmissing\t" in here.stdout


def test_a_home_kubeconfig_that_is_absent_or_wrong_is_one_line(peer_a: Cluster, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.conf"
    wrong.write_text("just text")
    for path in (tmp_path / "absent.conf", wrong):
        done = run_cli("run", "--peer", f"edge={peer_a.plane.kubeconfig}", "--kubeconfig", path)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert str(path) in line


def test_a_taken_admin_port_is_one_line(home: Cluster, peer_a: Cluster) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        peer = f"edge={peer_a.plane.kubeconfig}"
        done = run_cli("run", "--peer", peer, "--kubeconfig", home.plane.kubeconfig, "--admin-port", str(port))
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"vnode: admin port {port}: ")
    assert "Traceback" not in done.stderr


def test_a_run_whose_home_is_away_waits_for_it_and_says_so(own_vnode: Make, home: Cluster, peer_a: Cluster) -> None:
    alone = own_vnode(peer_config("patient", peer_a))
    nobody = _moved(home, alone.config.parent / "nobody.conf")
    alone.start("--kubeconfig", str(nobody))
    eventually("it says so", lambda: "home cluster does not answer" in alone.log)
    assert alone.admin("/healthz") == (200, "ok\n")
    assert alone.admin("/readyz")[0] == 503
    alone.terminate(limit_s=10)
    assert "Traceback" not in alone.log


def test_a_peer_that_is_away_at_the_start_leaves_the_others_working(
    own_vnode: Make, peer_a: Cluster, peer_b: Cluster, tmp_path: Path
) -> None:
    nobody = _moved(peer_b, tmp_path / "nobody.conf")
    pair = own_vnode(peer_config("works", peer_a), {"name": "away", "kubeconfig": str(nobody)}).start()
    eventually("one is Ready", lambda: pair.ready("works")["status"] == "True")
    away = eventually("the other says why it is not", lambda: _unready(pair, "away"), 40)
    assert away["reason"] == names.PEER_UNREACHABLE
    assert "away: " in pair.admin("/readyz")[1]


def test_a_node_of_that_name_that_is_not_ours_is_refused_and_untouched(own_vnode: Make, peer_a: Cluster) -> None:
    alone = own_vnode(peer_config("theirs", peer_a))
    api = Api(alone.home.plane)
    theirs = api.create({"kind": "Node", "apiVersion": "v1", "metadata": {"name": "theirs", "labels": {"a": "b"}}})
    alone.start()
    line = eventually(
        "it says so", lambda: next((x for x in alone.log_lines() if x["message"] == "node name taken"), None)
    )
    assert line["level"] == "error"
    assert "set node.name of peer theirs to another name" in line["error"]
    now = api.get("Node", "", "theirs")
    assert now["metadata"]["uid"] == theirs["metadata"]["uid"]
    assert now["metadata"]["labels"] == {"a": "b"} | {
        key: value for key, value in now["metadata"]["labels"].items() if "kubernetes.io" in key
    }
    assert api.find("Lease", "kube-node-lease", "theirs") is None
    api.delete("Node", "", "theirs")
    alone.wait_ready(60)  # the name is free now


def _with_token(cluster: Cluster, path: Path, token: str) -> Path:
    config = yaml.safe_load(cluster.plane.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    path.write_text(yaml.safe_dump(config))
    return path


def _moved(cluster: Cluster, path: Path) -> Path:
    """A kubeconfig that leads to a port where nobody listens."""
    config = yaml.safe_load(cluster.plane.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:9"
    path.write_text(yaml.safe_dump(config))
    return path


def _unready(vnode: Vnode, node: str) -> Json | None:
    ready = vnode.ready(node)
    return ready if ready.get("reason") == names.PEER_UNREACHABLE else None
