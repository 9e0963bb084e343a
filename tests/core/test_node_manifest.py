"""The Node we want, and the patches to it: what is ours is put right, what is others' survives."""

import copy
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vnode import names
from vnode.config import NodeSpec, PeerSpec, Taint
from vnode.errors import Rejected, Unavailable
from vnode.kube.objects import JsonDict, Object, from_dict
from vnode.node import patches
from vnode.node.capacity import Capacity, PeerNode
from vnode.node.heartbeat import failure
from vnode.node.images import Image
from vnode.node.manifest import (
    Condition,
    Identity,
    PeerFacts,
    Wanted,
    new_node,
    peer_facts,
    ready_condition,
    shown_condition,
    shown_facts,
    wanted_node,
)

NOW = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC)
IDENTITY = Identity("home", "0b1c")
READY = Condition("Ready", True, names.VNODE_READY, "well")
CAPACITY = Capacity({"cpu": "4", "memory": "8Gi", "gpu": "2"}, {"cpu": "3500m", "memory": "8Gi", "gpu": "1"})


def wanted(node: NodeSpec | None = None, **changes: Any) -> Wanted:
    spec = PeerSpec("edge", "/edge.conf", node=node or NodeSpec())
    given = {"address": "10.0.0.1", "port": 4000, "facts": PeerFacts("v1.37.2", features=("A", "B"))}
    return wanted_node(spec, IDENTITY, **({**given, "capacity": CAPACITY, "ready": READY} | changes))  # type: ignore[arg-type]


def registered(want: Wanted, **metadata: Any) -> JsonDict:
    node = copy.deepcopy(new_node("edge", want, NOW))
    node["metadata"] |= {"uid": "u1", "resourceVersion": "9", **metadata}
    return node


def merged(old: Any, patch: Any) -> Any:
    """RFC 7386; lists of conditions by type, as a strategic merge does."""
    if not isinstance(patch, dict):
        return patch
    new = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            new.pop(key, None)
        elif key == "conditions":
            kept = [c for c in new.get(key, []) if c["type"] not in {changed["type"] for changed in value}]
            new[key] = kept + value
        elif key == "addresses":
            new[key] = [address for address in value if "$patch" not in address]
        else:
            new[key] = merged(new.get(key), value)
    return new


def brought(node: JsonDict, want: Wanted, now: datetime = NOW) -> JsonDict:
    """The Node after what the controller would send."""
    seen = from_dict(node)
    changes = patches.metadata_changes(seen, want)
    if changes:
        node = merged(node, patches.onto(seen, changes))
    changes = patches.status_changes(from_dict(node), want)
    return merged(node, patches.timed(changes, from_dict(node), want, now)) if changes else node


def at_rest(node: Object, want: Wanted) -> bool:
    return not patches.metadata_changes(node, want) and not patches.status_changes(node, want)


def test_labels_are_the_fields_and_the_users() -> None:
    node = NodeSpec(labels={"team": "red"}, region="eu", zone="eu-1", provider="gke", name="edge-node")
    labels = wanted(node, facts=PeerFacts("v1.37.2", "linux", "arm64")).labels
    assert labels == {
        "type": "virtual-kubelet",
        "kubernetes.io/role": "agent",
        "kubernetes.io/hostname": "edge-node",
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "arm64",
        "beta.kubernetes.io/os": "linux",
        "beta.kubernetes.io/arch": "arm64",
        "node.kubernetes.io/exclude-from-external-load-balancers": "true",
        "topology.kubernetes.io/region": "eu",
        "topology.kubernetes.io/zone": "eu-1",
        "vnode.dev/peer": "edge",
        "vnode.dev/provider": "gke",
        "team": "red",
    }


@pytest.mark.parametrize(
    ("taints", "expected"),
    [
        (None, [{"key": "vnode.dev/peer", "value": "edge", "effect": "NoSchedule"}]),
        ([], []),
        ([Taint("a", "NoExecute")], [{"key": "a", "effect": "NoExecute"}]),
    ],
)
def test_the_taint_is_the_peers_unless_configured(taints: list[Taint] | None, expected: list[dict[str, str]]) -> None:
    assert wanted(NodeSpec(taints=taints)).taints == expected


def test_a_new_node_is_whole_and_never_without_its_taint() -> None:
    node = new_node("edge", wanted(), NOW)
    assert node["spec"]["taints"]
    assert [c["type"] for c in node["status"]["conditions"]] == [
        "MemoryPressure",
        "DiskPressure",
        "PIDPressure",
        "Ready",
    ]
    assert node["status"]["daemonEndpoints"] == {"kubeletEndpoint": {"Port": 4000}}
    assert node["status"]["addresses"] == [{"type": "InternalIP", "address": "10.0.0.1"}]
    info = node["status"]["nodeInfo"]
    assert len(info) == 10
    assert re.fullmatch(r"v\d+\.\d+\.\d+", info["kubeletVersion"])
    assert info["machineID"] != info["systemUUID"] != info["bootID"]
    assert at_rest(from_dict(node), wanted())


def test_the_ids_are_stable_and_a_nodes_own() -> None:
    one, again = wanted().status["nodeInfo"], wanted(NodeSpec(labels={"x": "y"})).status["nodeInfo"]
    other = wanted(NodeSpec(name="other")).status["nodeInfo"]
    assert one == again
    assert one["systemUUID"] != other["systemUUID"]


def peer(arch: str, image: str = "Debian", features: tuple[str, ...] = ()) -> PeerNode:
    info = {"architecture": arch, "operatingSystem": "linux", "osImage": image, "kernelVersion": "6.1"}
    return PeerNode("n", {}, True, {}, {}, info, frozenset(features))


def test_facts_are_the_majoritys_or_what_all_say() -> None:
    nodes = [
        peer("arm64", features=("A", "ExtendWebSocketsToKubelet", "B")),
        peer("arm64", "Flatcar", ("B", "A", "ExtendWebSocketsToKubelet")),
        peer("amd64", features=("B", "ExtendWebSocketsToKubelet", "A", "C")),
    ]
    assert peer_facts("v1.36.0", nodes) == PeerFacts("v1.36.0", "linux", "arm64", "mixed", "6.1", "", ("A", "B"))
    assert peer_facts("v1.36.0", []) == PeerFacts("v1.36.0")


def test_web_sockets_are_declared_only_where_they_are_passed_on() -> None:
    facts = PeerFacts("v1.37.0", features=("A", "Z"))
    passed = wanted(NodeSpec(webSockets="passed"), facts=facts)
    assert passed.status["declaredFeatures"] == ["A", "ExtendWebSocketsToKubelet", "Z"]
    assert shown_facts(from_dict(new_node("edge", passed, NOW))).features == ("A", "Z")
    assert wanted(facts=facts).status["declaredFeatures"] == ["A", "Z"]


def test_facts_survive_in_the_node_while_the_peer_is_away() -> None:
    images = (Image(("b:1", "b@sha256:1"), 30), Image(("a:1",), 20))
    facts = PeerFacts("v1.36.0", "linux", "arm64", "Debian", "6.1", "containerd://2", ("A",), images)
    assert shown_facts(from_dict(new_node("edge", wanted(facts=facts), NOW))) == facts
    assert shown_facts(from_dict({"metadata": {"name": "edge"}})) == PeerFacts()


@pytest.mark.parametrize(
    ("stopped", "unreachable", "missing", "status", "reason"),
    [
        ("", "", [], True, names.VNODE_READY),
        ("", "", ["its own stores"], False, names.VNODE_STARTING),
        ("", None, [], False, names.VNODE_STARTING),
        ("", "/readyz: failed: etcd", ["its own stores"], False, names.PEER_UNREACHABLE),
        ("told to", "/readyz: failed: etcd", [], False, names.VNODE_STOPPED),
    ],
)
def test_ready_says_why_not(
    stopped: str, unreachable: str | None, missing: list[str], status: bool, reason: str
) -> None:
    ready = ready_condition("edge", stopped=stopped, missing=missing, unreachable=unreachable)
    assert (ready.status, ready.reason) == (status, reason)
    assert all(part in ready.message for part in (*missing[: reason == names.VNODE_STARTING], stopped))


def test_a_condition_set_unknown_by_the_lifecycle_controller_is_not_taken_for_ours() -> None:
    node = registered(wanted())
    assert shown_condition(from_dict(node), "Ready") == READY
    node["status"]["conditions"][-1] |= {"status": "Unknown", "reason": "NodeStatusUnknown"}
    assert shown_condition(from_dict(node), "Ready") is None
    later = NOW + timedelta(seconds=90)
    ready = brought(node, wanted(), later)["status"]["conditions"][-1]
    assert (ready["status"], ready["lastTransitionTime"]) == ("True", "2026-05-01T12:01:30Z")


def test_hand_edits_of_ours_are_put_back() -> None:
    node = registered(wanted())
    right = copy.deepcopy(node)
    node["metadata"]["labels"] |= {"type": "mine", "kubernetes.io/arch": "s390x"}
    del node["metadata"]["labels"]["vnode.dev/peer"]
    del node["metadata"]["annotations"][names.LABELS_KEY]
    node["spec"]["taints"] = []
    node["status"] |= {"addresses": [{"type": "Hostname", "address": "x"}], "declaredFeatures": []}
    node["status"]["capacity"] = {"cpu": "900"}
    node["status"]["nodeInfo"]["kubeletVersion"] = "v0"
    node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"] = 1
    assert brought(node, wanted()) == right


def test_what_is_others_survives() -> None:
    node = registered(wanted())
    node["metadata"]["labels"]["theirs"] = "x"
    node["metadata"]["annotations"]["theirs"] = "x"
    foreign = [
        {"key": "node.kubernetes.io/not-ready", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"},
        {"key": names.PEER, "effect": "NoExecute", "value": "edge"},
    ]
    node["spec"] = {"unschedulable": True, "podCIDR": "10.1.0.0/24", "taints": foreign}
    network = {"type": "NetworkUnavailable", "status": "False", "lastHeartbeatTime": "2026-01-01T00:00:00Z"}
    node["status"]["conditions"] = [network]
    node["status"]["capacity"]["example.com/dongle"] = "3"
    node["status"]["images"] = [{"names": ["x"]}]
    after = brought(node, wanted())
    assert after["spec"] == {**node["spec"], "taints": [*foreign, *wanted().taints]}
    assert after["metadata"]["labels"]["theirs"] == after["metadata"]["annotations"]["theirs"] == "x"
    assert after["status"]["conditions"][0] == network
    assert after["status"]["capacity"]["example.com/dongle"] == "3"
    assert after["status"]["images"] == [{"names": ["x"]}]


def test_what_the_configuration_no_longer_says_goes() -> None:
    before = wanted(
        NodeSpec(labels={"team": "red"}, taints=[Taint("a", "NoSchedule"), Taint("b", "NoExecute")], zone="z")
    )
    fewer = Capacity({"cpu": "4", "memory": "8Gi"}, {"cpu": "4", "memory": "8Gi"})
    after = brought(registered(before), wanted(NodeSpec(taints=[Taint("b", "NoExecute")]), capacity=fewer))
    assert "team" not in after["metadata"]["labels"]
    assert "topology.kubernetes.io/zone" not in after["metadata"]["labels"]
    assert after["spec"]["taints"] == [{"key": "b", "effect": "NoExecute"}]
    assert after["status"]["capacity"] == {"cpu": "4", "memory": "8Gi"}
    assert after["metadata"]["annotations"][names.RESOURCES_KEY] == "cpu,memory"


def test_what_is_not_known_is_left_as_it_is() -> None:
    node = registered(wanted())
    unknown = wanted(port=0, capacity=None, facts=shown_facts(from_dict(node)))
    assert at_rest(from_dict(node), unknown)


def test_quantities_are_compared_as_amounts() -> None:
    node = registered(wanted())
    node["status"]["allocatable"] = {"cpu": "3.5", "memory": "8192Mi", "gpu": "1"}
    assert at_rest(from_dict(node), wanted())


def test_taints_are_patched_with_the_version_seen_and_all_else_with_the_uid() -> None:
    node = registered(wanted())
    node["spec"]["taints"] = []
    seen = from_dict(node)
    changes = patches.metadata_changes(seen, wanted())
    assert patches.onto(seen, changes)["metadata"] == {"uid": "u1", "resourceVersion": "9"}
    assert patches.onto(seen, {"metadata": {"labels": {"a": "b"}}})["metadata"] == {"labels": {"a": "b"}, "uid": "u1"}


def test_the_status_is_due_each_five_minutes() -> None:
    node = from_dict(registered(wanted()))
    assert not patches.report_due(node, NOW + timedelta(seconds=299))
    assert patches.report_due(node, NOW + timedelta(seconds=300))
    assert patches.report_due(from_dict({"metadata": {"name": "edge"}}), NOW)


def test_a_report_moves_the_heartbeat_and_keeps_the_transition() -> None:
    node = from_dict(registered(wanted()))
    later = NOW + timedelta(minutes=5)
    patch = patches.timed({}, node, wanted(), later)
    assert {c["lastHeartbeatTime"] for c in patch["status"]["conditions"]} == {"2026-05-01T12:05:00Z"}
    assert {c["lastTransitionTime"] for c in patch["status"]["conditions"]} == {"2026-05-01T12:00:00Z"}


LABELS = st.dictionaries(st.sampled_from(["a", "b", "type", names.PEER, "kubernetes.io/os"]), st.sampled_from("xy"))
TAINTS = st.lists(
    st.fixed_dictionaries(
        {"key": st.sampled_from(["a", "b", names.PEER]), "effect": st.sampled_from(["NoSchedule", "NoExecute"])},
        optional={"value": st.sampled_from("xy")},
    ),
    unique_by=lambda taint: (taint["key"], taint["effect"]),
)
STATES = st.sampled_from(["True", "False", "Unknown"])


@given(LABELS, TAINTS, TAINTS, st.dictionaries(st.sampled_from(["cpu", "gpu", "usb"]), st.sampled_from("12")), STATES)
def test_one_round_of_patches_brings_any_node_to_rest(
    labels: dict[str, str],
    shown: list[dict[str, str]],
    config: list[dict[str, str]],
    amounts: dict[str, str],
    state: str,
) -> None:
    want = wanted(NodeSpec(labels={"a": "ours"}, taints=[Taint(**taint) for taint in config]))  # type: ignore[arg-type]
    conditions = [{"type": "Ready", "status": state}, {"type": "NetworkUnavailable", "status": state}]
    node = {
        "metadata": {
            "name": "edge",
            "uid": "u",
            "resourceVersion": "1",
            "labels": labels,
            "annotations": {names.TAINTS_KEY: "a:NoExecute"},
        },
        "spec": {"taints": shown},
        "status": {"capacity": amounts, "conditions": conditions},
    }
    untouched = copy.deepcopy(node)
    after = brought(node, want)
    assert node == untouched
    assert at_rest(from_dict(after), want)
    ours = {(taint["key"], taint["effect"]) for taint in config}
    for taint in shown:
        identity = (taint["key"], taint["effect"])
        assert taint in after["spec"]["taints"] or identity in ours or identity == ("a", "NoExecute")
    assert conditions[1] in after["status"]["conditions"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            Unavailable("[+]ping ok\n[-]etcd failed: reason withheld\n[-]shutdown failed: x", 500),
            "/readyz: failed: etcd, shutdown",
        ),
        (Unavailable("https://x: Cannot connect"), "/readyz: https://x: Cannot connect"),
        (Unavailable("busy", 503), "/readyz: HTTP 503: busy"),
        (Rejected("no", 403), "/readyz: no"),
    ],
)
def test_a_failed_probe_says_what_failed_in_one_line(error: Any, expected: str) -> None:
    assert failure("/readyz", error) == expected
