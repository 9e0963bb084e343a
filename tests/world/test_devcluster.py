"""The clusters that all world tests stand on are what they claim to be, and leave nothing behind."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from vnode.devcluster import images
from vnode.devcluster.build import KUBERNETES, Binaries
from vnode.devcluster.cluster import Cluster
from vnode.devcluster.controlplane import ControlPlane
from vnode.devcluster.errors import DevClusterError
from vnode.devcluster.kwok import write_log
from vnode.devcluster.processes import ProcessGroup, wait_until
from vnode.devcluster.realnode import RealNode, available

needs_real_node = pytest.mark.skipif(available() is not None, reason=str(available()))


def test_server_and_client_tell_the_version_they_were_built_from(peer_a: Cluster) -> None:
    assert peer_a.plane.get("/version")["gitVersion"] == f"v{KUBERNETES}"
    client = json.loads(peer_a.plane.kubectl("version", "--client", "-o", "json").stdout)
    assert client["clientVersion"]["gitVersion"] == f"v{KUBERNETES}"


def test_a_simulated_pod_gets_the_status_a_kubelet_would_write(peer_a: Cluster) -> None:
    init: list[Mapping[str, Any]] = [
        {"name": "first", "image": "a"},
        {"name": "side", "image": "b", "restartPolicy": "Always"},
    ]
    _create(peer_a, _pod("simulated", init=init))
    _wait(peer_a, "pod/simulated", "Ready")
    status = peer_a.plane.get("/api/v1/namespaces/default/pods/simulated")["status"]
    assert status["phase"] == "Running"
    assert status["podIP"].startswith("10.129.")
    assert status["podIPs"] == [{"ip": status["podIP"]}]
    assert {condition["type"] for condition in status["conditions"] if condition["status"] == "True"} == {
        "PodReadyToStartContainers",
        "Initialized",
        "Ready",
        "ContainersReady",
        "PodScheduled",
    }
    (container,) = status["containerStatuses"]
    assert container["started"]
    assert container["ready"]
    assert container["containerID"].startswith("containerd://")
    first, side = status["initContainerStatuses"]
    assert first["state"]["terminated"]["reason"] == "Completed"
    assert "running" in side["state"]


def test_logs_of_a_simulated_container_come_from_its_file(peer_a: Cluster) -> None:
    _create(peer_a, _pod("logging"))
    _wait(peer_a, "pod/logging", "Ready")
    write_log(peer_a.kwok.log_file, ["one", "two"])
    assert peer_a.plane.kubectl("logs", "logging").stdout.endswith("one\ntwo\n")
    assert peer_a.plane.kubectl("logs", "logging", "--tail=1").stdout == "two\n"
    previous = peer_a.plane.kubectl("logs", "logging", "--previous").stdout
    assert previous == "hello from the previous run of a simulated container in peer-a\n"


def test_jobs_complete_fail_or_wait_as_their_pods_say(peer_a: Cluster) -> None:
    _create(peer_a, _job("good", {}))
    _create(peer_a, _job("bad", {"kwok.test/exit": "3"}))
    _create(peer_a, _job("patient", {"kwok.test/exit": "hold"}))
    _wait(peer_a, "job/good", "Complete")
    _wait(peer_a, "job/bad", "Failed")
    (failed,) = peer_a.plane.get("/api/v1/namespaces/default/pods?labelSelector=job-name%3Dbad")["items"]
    assert failed["status"]["phase"] == "Failed"
    assert failed["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 3
    _wait(peer_a, "pod", "Ready", "-l", "job-name=patient")
    peer_a.plane.kubectl("label", "pod", "-l", "job-name=patient", "kwok.test/exit=0", "--overwrite")
    _wait(peer_a, "job/patient", "Complete")


def test_an_apiserver_that_died_comes_back_with_its_data(peer_b: Cluster) -> None:
    peer_b.plane.kubectl("create", "configmap", "survivor", "--from-literal=a=b")
    peer_b.plane.restart_apiserver()
    assert peer_b.plane.get("/api/v1/namespaces/default/configmaps/survivor")["data"] == {"a": "b"}
    peer_b.plane.wait_ready()


def test_a_kubeconfig_for_a_user_says_who_they_are_and_no_more(peer_a: Cluster) -> None:
    jane = peer_a.plane.kubeconfig_for("jane", ["devs"])
    who = json.loads(peer_a.plane.kubectl("--kubeconfig", jane, "auth", "whoami", "-o", "json").stdout)
    assert who["status"]["userInfo"]["username"] == "jane"
    assert "devs" in who["status"]["userInfo"]["groups"]
    with pytest.raises(DevClusterError, match="cannot list"):
        peer_a.plane.kubectl("--kubeconfig", jane, "get", "pods")


def test_a_stopped_control_plane_has_no_process_left(binaries: Binaries, tmp_path: Path) -> None:
    with ControlPlane("short", tmp_path / "short", binaries) as plane:
        assert _processes_naming(plane.directory)
    assert not _processes_naming(plane.directory)


def test_processes_end_with_whoever_started_them(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys, time; from vnode.devcluster.processes import ProcessGroup\n"
        "group = ProcessGroup(pathlib.Path(sys.argv[1])); group.start('sleeper', ['sleep', '600'])\n"
        "print(group.pid('sleeper'), flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        sleeper = int(parent.stdout.readline())
        assert _is_alive(sleeper)
        parent.kill()
    wait_until("the child of a killed parent is gone", lambda: not _is_alive(sleeper), 5)


def test_a_program_that_ends_at_once_is_told_with_its_last_words(tmp_path: Path) -> None:
    group = ProcessGroup(tmp_path)
    group.start("talker", ["sh", "-c", "echo no such luck; exit 3"])
    wait_until("it ends", lambda: not group.running("talker"), 5)
    with pytest.raises(DevClusterError, match=r"(?s)talker ended with 3.*no such luck"):
        group.check("talker")
    group.stop()


def test_a_real_node_runs_a_pod_with_logs_and_exec(real_peer: Cluster) -> None:
    command = ["sh", "-c", "echo started; trap 'exit 0' TERM; while true; do sleep 0.1; done"]
    _create(real_peer, _pod("real", image=images.BUSYBOX, command=command, imagePullPolicy="IfNotPresent"))
    _wait(real_peer, "pod/real", "Ready")
    assert real_peer.plane.kubectl("logs", "real").stdout == "started\n"
    assert real_peer.plane.kubectl("exec", "real", "--", "hostname").stdout == "real\n"
    real_peer.plane.kubectl("delete", "pod", "real")


@needs_real_node
def test_a_stopped_real_node_leaves_nothing_behind(real_peer: Cluster) -> None:
    before = _machine()
    with RealNode(real_peer.plane, "leaver") as node:
        pod = _pod("left", image=images.BUSYBOX, command=["sleep", "3600"], imagePullPolicy="IfNotPresent")
        pod["spec"] |= {"nodeName": "leaver", "hostPID": True}
        _create(real_peer, pod)
        _wait(real_peer, "pod/left", "Ready")
        assert _machine() != before
    assert _machine() == before
    assert not _processes_naming(node.directory)
    real_peer.plane.kubectl("delete", "pod", "left", "--force")
    real_peer.plane.kubectl("delete", "node", "leaver")


def _pod(
    name: str, *, init: list[Mapping[str, Any]] | None = None, image: str = "simulated", **container: object
) -> dict[str, Any]:
    spec = {"containers": [{"name": "main", "image": image, **container}], "initContainers": init or []}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def _job(name: str, labels: Mapping[str, str]) -> Mapping[str, Any]:
    pod = {"restartPolicy": "Never", "containers": [{"name": "main", "image": "simulated"}]}
    spec = {"backoffLimit": 0, "template": {"metadata": {"labels": labels}, "spec": pod}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec}


def _create(cluster: Cluster, item: Mapping[str, Any]) -> None:
    cluster.plane.kubectl("create", "-f", "-", input=json.dumps(item))


def _wait(cluster: Cluster, what: str, condition: str, *more: str) -> None:
    cluster.plane.kubectl("wait", what, f"--for=condition={condition}", "--timeout=30s", *more)


def _processes_naming(directory: Path) -> list[str]:
    listing = subprocess.run(["ps", "-ewwo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listing.splitlines() if f"{directory}/" in line]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # An orphan that has ended may wait for init to take note of it.
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()


def _machine() -> Mapping[str, set[str]]:
    """What of this machine a node changes: mounts, network links, containers' cgroups, the state of CNI and shims."""
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    return {
        "mounts": {line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()},
        "links": {line.split()[1] for line in links.splitlines()},
        "cgroups": {str(path) for path in Path("/sys/fs/cgroup").glob("**/k8s.io/*") if path.is_dir()},
        "files": {str(path) for place in ("/run/containerd", "/var/lib/cni") for path in Path(place).glob("**/*")},
        "run": {str(path) for path in Path("/run").glob("vnode*")},
    }
