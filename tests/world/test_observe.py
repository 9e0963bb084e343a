"""`vnode status | peers | pods | trace` on a real rollout: run by people, by kubectl, by a shell that completes."""

import json
import os
import pty
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.expect import eventually
from tests.world.api import Api
from tests.world.manifests import bound, deployment
from tests.world.vnodes import Space, Vnode, peer_config, run_cli
from vnode import names
from vnode.devcluster.cluster import Cluster

Json = dict[str, Any]
Make = Callable[..., Vnode]
CLAIM: Json = {"volumes": [{"name": "disk", "persistentVolumeClaim": {"claimName": "none"}}]}


@pytest.fixture
def rollout(vnode: Vnode, space: Space) -> Space:
    """A namespace with a Deployment of two that is rolled out, and a Pod that had to be refused."""
    assert "edge-a" in vnode.nodes
    space.create(deployment("web", "edge-a", 2), bound("refused", "edge-a", **CLAIM))
    space.rolled_out("deployment/web")
    space.wait_refused("refused", names.UNSUPPORTED_FIELD)
    return space


def told(*arguments: str | Path) -> Json:
    """The JSON that a command printed."""
    done = run_cli(*arguments, "-o", "json")
    assert (done.returncode, done.stderr) == (0, "")
    answer: Json = json.loads(done.stdout)
    return answer


def test_status_answers_whether_all_is_well(rollout: Space, vnode: Vnode, home: Cluster) -> None:
    where = ("--kubeconfig", home.plane.kubeconfig)
    report = told("status", "edge-a", *where, "--admin", vnode.admin_url)
    assert report["notes"] == []
    (edge,) = report["peers"]
    assert (edge["peer"], edge["node"], edge["health"]["word"]) == ("edge-a", "edge-a", "Ready")
    assert edge["version"] == home.plane.get("/version")["gitVersion"]
    assert edge["pods"]["ready"] >= 2
    assert edge["pods"]["failing"] >= 1
    assert edge["hops"]["down"]["count"] >= 2
    assert 0 < edge["hops"]["up"]["p50"] <= edge["hops"]["up"]["p99"] < 60
    refused = (f"pod {rollout.name}/refused", names.UNSUPPORTED_FIELD)
    assert refused in [(error["about"], error["reason"]) for error in report["errors"]]

    lines = run_cli("status", *where).stdout.splitlines()
    assert {("PEER", "HEALTH"), ("edge-a", "Ready"), ("edge-b", "Ready")} <= {tuple(line.split()[:2]) for line in lines}
    assert any(f"pod {rollout.name}/refused   UnsupportedField   spec.volumes[0]" in line for line in lines)
    assert lines[-1].startswith("note: no hops: home: ")  # apiservers refuse to proxy to a loopback address


def test_hops_come_through_the_node_where_it_has_an_address(own_vnode: Make, home: Cluster, peer_a: Cluster) -> None:
    address = own_address()
    if not address:
        pytest.skip("this machine has no address but loopback, to which apiservers do not proxy")
    alone = own_vnode(peer_config("addressed", peer_a))
    alone.config.write_text(alone.config.read_text().replace("127.0.0.1", address))
    alone.start().wait_ready()
    report = told("peers", "addressed", "--kubeconfig", home.plane.kubeconfig)
    assert report["notes"] == []
    (row,) = report["peers"]
    status = Api(home.plane).get("Node", "", "addressed")["status"]
    assert row["kubelet"] == f"{address}:{status['daemonEndpoints']['kubeletEndpoint']['Port']}"
    assert row["allocatable"] == status["allocatable"]
    assert row["hops"]["probe"]["count"] >= 1


def test_pods_have_both_their_names_where_a_peers_credential_is_given(
    rollout: Space, vnode: Vnode, home: Cluster
) -> None:
    where = ("-n", rollout.name, "--kubeconfig", home.plane.kubeconfig)
    rows = {row["name"]: row for row in told("pods", *where, "--config", vnode.config)["pods"]}
    assert rows.pop("refused")["status"] == names.UNSUPPORTED_FIELD
    mirrors = rollout.mirrors()
    assert set(rows) == set(mirrors)
    for name, row in rows.items():
        there = mirrors[name]
        assert (row["status"], row["ready"], row["peer"]) == ("Running", 1, "edge-a")
        assert row["remote"] == {
            "namespace": rollout.remote,
            "name": name,
            "node": there["spec"]["nodeName"],
            "ip": there["status"]["podIP"],
        }


def test_trace_tells_one_life_over_both_clusters(rollout: Space, vnode: Vnode, home: Cluster) -> None:
    name, mirror = next(iter(rollout.mirrors("app=web").items()))
    where = ("-n", rollout.name, "--kubeconfig", home.plane.kubeconfig)
    rollout.peer.create(pulled(mirror), rollout.remote)
    eventually("home tells it, too", lambda: rollout.home.list("Event", rollout.name, fields="reason=Pulled"))
    report = told("trace", name, *where, "--config", vnode.config)
    assert (report["status"], report["node"], report["notes"]) == ("Running", "edge-a", [])
    assert report["remote"]["node"] == mirror["spec"]["nodeName"]
    assert 0 <= report["hopDownS"] < 60
    assert 0 <= report["hopUpS"] < 60
    steps = [(entry["side"], entry["what"]) for entry in report["timeline"]]
    walk = [
        ("home", "created"),
        ("home", "PodScheduled=True"),
        ("peer", "created"),
        ("peer", "PodScheduled=True"),
        ("peer", "main started"),
        ("peer", "Ready=True"),
        ("home", "status written"),
    ]
    assert [step for step in steps if step in walk] == walk
    # What home has from the peer is told once.
    assert [step for step in steps if step[1] in ("Pulled", "Ready=True")] == [
        ("peer", "Pulled"),
        ("peer", "Ready=True"),
    ]

    rollout.home.delete("Pod", rollout.name, name)
    eventually("it is gone", lambda: rollout.pod(name) is None)
    gone = run_cli("trace", name, *where).stdout.splitlines()
    assert gone[0] == f"Pod {rollout.name}/{name}: gone"
    assert any("Pulled" in line for line in gone)


def test_who_may_see_one_namespace_traces_there_and_is_told_what_is_refused(rollout: Space, home: Cluster) -> None:
    user = home.plane.kubeconfig_for("observer")
    rollout.kubectl("create", "role", "look", "--verb=get,list", "--resource=pods,events")
    rollout.kubectl("create", "rolebinding", "look", "--role=look", "--user=observer")
    done = run_cli("trace", "refused", "-n", rollout.name, "--kubeconfig", user)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{names.REMOTE_CONDITION}=False" in done.stdout
    refused = run_cli("status", "--kubeconfig", user)
    assert (refused.returncode, refused.stdout) == (1, "")
    (line,) = refused.stderr.splitlines()
    assert line.startswith('vnode: home: nodes is forbidden: User "observer" cannot list resource "nodes"')


def test_a_watch_that_is_piped_tells_what_changes(rollout: Space, home: Cluster) -> None:
    flags = ["--watch", "--kubeconfig", str(home.plane.kubeconfig)]
    command = [sys.executable, "-m", "vnode", "status", "edge-a", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as watch:
        try:
            assert watch.stdout is not None
            assert watch.stdout.readline().startswith("PEER ")
            rollout.kubectl("scale", "deployment/web", "--replicas=3")
            assert any(line.startswith("PEER ") for line in watch.stdout)  # again
        finally:
            watch.kill()


def test_a_terminal_gets_colours(vnode: Vnode, home: Cluster) -> None:
    assert vnode.nodes
    text = in_terminal([sys.executable, "-m", "vnode", "status", "--kubeconfig", str(home.plane.kubeconfig)])
    assert "\x1b[32mReady" in text


def test_kubectl_runs_and_completes_the_plugin(rollout: Space, home: Cluster, tmp_path: Path) -> None:
    for name, function in (("kubectl-vnode", "main"), ("kubectl_complete-vnode", "complete")):
        script = tmp_path / name
        script.write_text(f"#!{sys.executable}\nfrom vnode.plugin import {function}\n{function}()\n")
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
    kubectl = str(home.plane.binaries["kubectl"])
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "KUBECONFIG": str(home.plane.kubeconfig),
        "COLUMNS": "120",
    }

    def run(*arguments: str) -> list[str]:
        done = subprocess.run(
            [kubectl, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=True
        )
        return done.stdout.splitlines()

    assert run("vnode", "peers")[0].startswith("PEER ")
    commands = run("__complete", "vnode", "")
    assert {"status", "peers", "pods", "trace", "run", ":4"} <= {line.split("\t")[0] for line in commands}
    # Within the limit of a completion, that is: a machine with more to do than it can may miss it.
    eventually("peers", lambda: {"edge-a", "edge-b"} <= set(run("__complete", "vnode", "status", "edge")), 60)
    pods, trace = [*sorted(rollout.pods("app=web")), ":4"], ("vnode", "trace", "-n", rollout.name, "web-")
    eventually("Pods", lambda: run("__complete", *trace) == pods, 60)


def pulled(mirror: Json) -> Json:
    """What the peer's kubelet would say of its image."""
    metadata = mirror["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{metadata['name']}.pulled"},
        "involvedObject": {"kind": "Pod", **{key: metadata[key] for key in ("namespace", "name", "uid")}},
        "type": "Normal",
        "reason": "Pulled",
        "message": "it is there",
        "source": {"component": "kubelet", "host": mirror["spec"]["nodeName"]},
        "firstTimestamp": metadata["creationTimestamp"],
        "lastTimestamp": metadata["creationTimestamp"],
        "count": 1,
    }


def own_address() -> str:
    """This machine's address towards the world, "" if it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as route:
        try:
            route.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return ""
        address = str(route.getsockname()[0])
    return "" if address.startswith("127.") else address


def in_terminal(command: Sequence[str]) -> str:
    """What a command prints on a terminal."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        chunks = []
        try:
            while chunk := os.read(ours, 65536):
                chunks.append(chunk)
        except OSError:
            pass  # a terminal's end, on Linux
        finally:
            os.close(ours)
        assert process.wait(30) == 0
    return b"".join(chunks).decode()
