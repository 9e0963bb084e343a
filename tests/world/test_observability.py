"""What vnode tells about itself: health, metrics, logs; and what it must never tell."""

import base64
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable

from tests.expect import eventually
from tests.world.api import Api, Json
from tests.world.manifests import deployment, pod, secret
from tests.world.vnodes import Space, Vnode, peer_config
from vnode.devcluster.cluster import Cluster

Make = Callable[..., Vnode]
HIDDEN = "correct-horse-battery-staple"
MOUNT: Json = {"volumes": [{"name": "keys", "secret": {"secretName": "keys"}}]}


def test_health_and_readiness_are_on_the_admin_port(vnode: Vnode) -> None:
    assert vnode.admin("/healthz") == (200, "ok\n")
    assert vnode.admin("/readyz") == (200, "ok\n")
    assert vnode.admin("/else")[0] == 404


def test_both_hops_are_counted_for_each_pod(vnode: Vnode, space: Space) -> None:
    down = vnode.metric("vnode_pods_hop_down_seconds_count", peer="edge-a")
    up = vnode.metric("vnode_pods_hop_up_seconds_count", peer="edge-a")
    space.create(deployment("web", "edge-a", 5))
    space.rolled_out("deployment/web")
    assert vnode.metric("vnode_pods_hop_down_seconds_count", peer="edge-a") == down + 5
    assert vnode.metric("vnode_pods_hop_up_seconds_count", peer="edge-a") >= up + 5
    assert vnode.metric("vnode_pods_pods", peer="edge-a", side="home") >= 5
    eventually("both sides count the same", lambda: _count(vnode, "home") == _count(vnode, "peer"))


def test_the_series_an_operator_needs_are_there(vnode: Vnode, space: Space) -> None:
    space.create(pod("one", "edge-a"))
    space.wait_ready("one")
    text = vnode.admin("/metrics")[1]
    for name in ("vnode_runtime_queue_depth", "vnode_runtime_retries_total", "vnode_node_probe_seconds"):
        assert f"# TYPE {name} " in text
    assert vnode.metric("vnode_kube_requests_total", side="edge-a", verb="create", resource="pods", code="201") >= 1
    assert vnode.metric("vnode_kube_requests_total", side="home", verb="patch", resource="pods", code="200") >= 1
    assert vnode.metric("vnode_node_peer_up") == 2
    assert vnode.metric("vnode_runtime_bugs_total") == 0
    assert "process_resident_memory_bytes" in text
    assert f'"{space.name}"' not in text  # nobody's names: they would be without bound


def test_a_pod_costs_two_writes_at_the_peer(vnode: Vnode, space: Space) -> None:
    def writes(side: str) -> float:
        verbs = ("create", "patch", "update", "delete", "apply")
        return sum(vnode.metric("vnode_kube_requests_total", side=side, resource="pods", verb=verb) for verb in verbs)

    space.create(pod("first", "edge-a"))  # makes the namespace
    space.wait_ready("first")
    before = writes("edge-a"), writes("home")
    space.create(pod("one", "edge-a"))
    space.wait_ready("one")
    space.kubectl("delete", "pod", "one")
    eventually("it is gone", lambda: not space.mirror("one"))
    assert writes("edge-a") - before[0] == 2
    # Running, and the release. On a busy machine its way to there shows in two steps, and between them its end, when
    # the mirror does not follow it within 100 ms.
    assert 2 <= writes("home") - before[1] <= 4


def test_the_log_is_json_with_facts_and_no_secret_in_it(
    own_vnode: Make, new_space: Callable[..., Space], peer_a: Cluster, home: Cluster
) -> None:
    alone = own_vnode(peer_config("talker", peer_a), flags=("--log-level", "debug")).start().wait_ready()
    space = new_space(peer_a, "talker")
    space.create(secret("keys", {"token": HIDDEN}), pod("user", "talker", **MOUNT), pod("refused", "talker"))
    space.wait_ready("user")
    space.home.patch("Secret", space.name, "keys", {"stringData": {"token": f"{HIDDEN}-2"}})
    eventually("the copy follows", lambda: _copied(space) == f"{HIDDEN}-2")
    token = home.plane.kubectl("create", "token", "default", "-n", space.name).stdout.strip()
    # Tokens come by at the kubelet port.
    port = space.home.get("Node", "", "talker")["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]
    assert _get(f"https://127.0.0.1:{port}/containerLogs/{space.name}/user/main", token) == 403
    space.kubectl("delete", "pod", "user", "refused")
    alone.terminate(limit_s=20)
    entries = alone.log_lines()
    assert {"time", "level", "logger", "message"} <= set.intersection(*(set(entry) for entry in entries))
    assert {entry["level"] for entry in entries} <= {"debug", "info", "warning"}
    mirrored = [entry for entry in entries if entry["message"] == "mirrored"]
    assert {(entry["peer"], entry["node"], entry["namespace"], entry["pod"]) for entry in mirrored} == {
        ("talker", "talker", space.name, name) for name in ("user", "refused")
    }
    text = alone.log
    for hidden in (HIDDEN, base64.b64encode(HIDDEN.encode()).decode().rstrip("="), token, "PRIVATE KEY", "Bearer"):
        assert hidden not in text


def test_an_idle_vnode_asks_for_nothing_but_leases_and_probes(
    own_vnode: Make, home: Cluster, peer_a: Cluster, vnode: Vnode
) -> None:
    # One that goes has its copy looked for at each peer.
    eventually(
        "no namespace goes",
        lambda: all("deletionTimestamp" not in each["metadata"] for each in Api(home.plane).list("Namespace")),
        90,
    )
    alone = own_vnode(peer_config("idle", peer_a)).start().wait_ready()
    assert "idle" not in vnode.nodes
    eventually("its certificate is asked for", lambda: "serving certificate requested" in alone.log)
    eventually("the Lease was renewed once", lambda: _leases(alone) >= 3)
    before = _requests(alone)
    eventually("the Lease was renewed once more", lambda: _leases(alone) >= 4)
    after = _requests(alone)
    changed = {key for key in after if after[key] != before.get(key, 0)}
    assert {key for key in changed if not _quiet(key)} == set()


def _leases(vnode: Vnode) -> float:
    return vnode.metric("vnode_kube_requests_total", resource="leases")


def _quiet(key: str) -> bool:
    return 'resource="leases"' in key or 'verb="watch"' in key or 'resource="/' in key or 'resource=""' in key


def _requests(vnode: Vnode) -> dict[str, float]:
    lines = [line.rpartition(" ") for line in vnode.admin("/metrics")[1].splitlines()]
    return {sample: float(value) for sample, _, value in lines if sample.startswith("vnode_kube_requests_total{")}


def _count(vnode: Vnode, side: str) -> float:
    return vnode.metric("vnode_pods_pods", peer="edge-a", side=side)


def _copied(space: Space) -> str:
    found = space.peer.get("Secret", space.remote, "keys")
    return base64.b64decode(found["data"]["token"]).decode()


def _get(url: str, token: str) -> int:
    trust = ssl.create_default_context()
    trust.check_hostname = False
    trust.verify_mode = ssl.CERT_NONE  # it may be self-signed
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=10, context=trust) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
