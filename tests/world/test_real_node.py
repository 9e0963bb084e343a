"""Pods that truly run: a peer with a real kubelet and containers, seen from home. Needs root and containerd."""

import re
from typing import Any

from tests.expect import eventually
from tests.world.api import Api
from tests.world.manifests import deployment, job, pod, shell
from tests.world.vnodes import Space, Vnode, is_ready
from vnode.devcluster.cluster import Cluster

NODE = "edge-real"


def test_a_deployment_runs_in_containers_that_see_home(real_space: Space) -> None:
    space = real_space
    space.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "conf"}, "data": {"greeting": "hello"}})
    facts = {"NS": "metadata.namespace", "NODE": "spec.nodeName", "UID": "metadata.uid"}
    container = shell(
        'echo "$NS $NODE $UID $(cat /conf/greeting)"; trap exit TERM; while true; do sleep 0.1; done',
        env=[{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in facts.items()],
        volumeMounts=[{"name": "conf", "mountPath": "/conf"}],
    )
    volumes = [{"name": "conf", "configMap": {"name": "conf"}}]
    space.create(deployment("web", NODE, 2, containers=[container], volumes=volumes))
    space.rolled_out("deployment/web")
    for name, item in space.pods("app=web").items():
        said = eventually("the container has spoken", lambda name=name: space.kubectl("logs", name))  # type: ignore[misc]
        assert said == f"{space.name} {NODE} {item['metadata']['uid']} hello\n"
    space.kubectl("delete", "deployment", "web")
    space.wait_gone()


def test_a_job_of_real_processes_ends_by_their_exit_codes(real_space: Space) -> None:
    space = real_space
    good = job("good", NODE, containers=[shell("echo done")])
    bad = job("bad", NODE, spec={"backoffLimit": 0}, containers=[shell("exit 7")])
    space.create(good, bad)
    space.kubectl("wait", "job/good", "--for=condition=Complete", "--timeout=60s")
    space.kubectl("wait", "job/bad", "--for=condition=Failed", "--timeout=60s")
    (failed,) = space.pods("job-name=bad").values()
    assert failed["status"]["phase"] == "Failed"
    assert failed["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 7


def test_deletion_waits_for_the_process_as_long_as_the_user_says(real_space: Space) -> None:
    space = real_space
    script = 'trap "echo leaving; sleep 4; exit 0" TERM; echo up; while true; do sleep 0.1; done'
    space.create(pod("slow", NODE, containers=[shell(script)], terminationGracePeriodSeconds=60))
    space.wait_ready("slow", limit_s=60)
    space.kubectl("delete", "pod", "slow", "--grace-period=30", "--wait=false")
    eventually("the process is told", lambda: "leaving" in space.kubectl("logs", "slow"))
    leaving = space.pod("slow")
    assert leaving is not None, "released while its process still runs"
    assert leaving["metadata"]["deletionGracePeriodSeconds"] == 30
    space.wait_gone()


def test_a_real_pod_is_ready_at_home_only_while_it_is_at_the_peer(real_space: Space) -> None:
    space = real_space
    probe = {"exec": {"command": ["test", "-e", "/tmp/ready"]}, "periodSeconds": 1}
    container = shell("touch /tmp/ready; sleep 3; rm /tmp/ready; sleep 1000", readinessProbe=probe)
    space.create(pod("flips", NODE, containers=[container], terminationGracePeriodSeconds=0))
    space.wait_ready("flips", limit_s=60)
    eventually("it is not Ready any more", lambda: not is_ready(space.pod("flips")), 60)


def test_the_node_reads_as_a_real_one(real_vnode: Vnode, home: Cluster, real_peer: Cluster) -> None:
    assert NODE in real_vnode.nodes
    real = real_peer.real_nodes[0].name
    (wide,) = home.plane.kubectl("get", "node", NODE, "-o", "wide", "--no-headers").stdout.splitlines()
    (real_wide,) = real_peer.plane.kubectl("get", "node", real, "-o", "wide", "--no-headers").stdout.splitlines()
    ours, theirs = (re.split(" {2,}", line) for line in (wide, real_wide))
    assert ours[1] == "Ready"
    assert ours[4] == theirs[4]  # the version
    # Without what stands in brackets: since v1.36 apiservers print the architecture, too.
    ours, theirs = ([column.partition(" (")[0] for column in row] for row in (ours, theirs))
    assert ours[7:] == theirs[7:]  # system, kernel and container runtime
    assert "<unknown>" not in wide

    status, real_status = (
        cluster.plane.get(f"/api/v1/nodes/{name}")["status"] for cluster, name in ((home, NODE), (real_peer, real))
    )
    assert {name for image in status["images"] for name in image["names"]} == {
        name for image in real_status["images"] for name in image["names"]
    }
    assert conditions(status).keys() == conditions(real_status).keys()
    for kind, shown in conditions(status).items():
        real_shown = conditions(real_status)[kind]
        assert (shown.keys(), shown["status"]) == (real_shown.keys(), real_shown["status"])
        assert kind == "Ready" or shown["reason"] == real_shown["reason"]
    assert status["capacity"].items() >= real_status["capacity"].items()
    assert status["allocatable"].keys() == status["capacity"].keys() >= real_status["allocatable"].keys()
    info, real_info = status["nodeInfo"], real_status["nodeInfo"]
    assert info.keys() == real_info.keys() - {"runningInUserNamespace"}
    assert not {key for key in info if info[key] != real_info[key]} - {"machineID", "systemUUID", "bootID"}
    # What only one machine can say of itself stays unsaid.
    unsaid = {"config", "features", "runtimeHandlers", "volumesAttached", "volumesInUse"}
    assert status.keys() == real_status.keys() - unsaid

    eventually("the Lease is there", lambda: Api(home.plane).find("Lease", "kube-node-lease", NODE))
    described = home.plane.kubectl("describe", "node", NODE).stdout
    real_described = real_peer.plane.kubectl("describe", "node", real).stdout
    sections = re.compile(r"^([A-Z][A-Za-z- ]+):", re.M)
    assert set(sections.findall(described)) == set(sections.findall(real_described)) - {"PodCIDR", "PodCIDRs"}
    facts = re.compile(r"^  ([A-Z][A-Za-z ]+): .*$", re.M)
    assert facts.findall(section(described, "System Info")) == facts.findall(section(real_described, "System Info"))
    assert "HolderIdentity:  " + NODE in section(described, "Lease")
    assert "<unknown>" not in described


def conditions(status: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A Node's conditions by type."""
    return {each["type"]: each for each in status["conditions"]}


def section(described: str, name: str) -> str:
    """What `kubectl describe` says below `name`."""
    return re.split(r"^(?=\S)", described.split(f"\n{name}:", 1)[1], maxsplit=1, flags=re.M)[0]
