"""What a Pod asks for, what a peer has left: tables, and the rules against a simulated life of a Pod."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vnode import names
from vnode.kube.objects import Object, from_dict, quantity
from vnode.node.capacity import (
    Capacity,
    PeerNode,
    Usage,
    eligible,
    limits_alone,
    notable,
    offered,
    peer_node,
    slim_node,
    within_quotas,
)
from vnode.node.requests import read_share, requests, share_of


def container(
    cpu: str = "", memory: str = "", more: Mapping[str, str] | None = None, *, sidecar: bool = False
) -> dict[str, Any]:
    asked = {"cpu": cpu, "memory": memory, **(more or {})}
    built: dict[str, Any] = {"resources": {"requests": {name: text for name, text in asked.items() if text}}}
    return built | ({"restartPolicy": "Always"} if sidecar else {})


def numbers(amounts: Mapping[str, str]) -> dict[str, Decimal]:
    return {name: quantity(text) for name, text in amounts.items()}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param({"containers": [{"name": "bare"}]}, {}, id="nothing asked"),
        pytest.param(
            {"containers": [container("1"), container("500m", "1Gi")]}, {"cpu": "1500m", "memory": "1Gi"}, id="sum"
        ),
        pytest.param(
            {"initContainers": [container("2"), container("3")], "containers": [container("1", "1Gi")]},
            {"cpu": "3", "memory": "1Gi"},
            id="the largest init container",
        ),
        pytest.param(
            {"initContainers": [container("1", sidecar=True)], "containers": [container("2")]},
            {"cpu": "3"},
            id="a sidecar runs beside the containers",
        ),
        pytest.param(
            {"initContainers": [container("1", sidecar=True), container("4")], "containers": [container("2")]},
            {"cpu": "5"},
            id="an init container runs beside earlier sidecars",
        ),
        pytest.param(
            {"initContainers": [container("4"), container("1", sidecar=True)], "containers": [container("2")]},
            {"cpu": "4"},
            id="an init container does not run beside later sidecars",
        ),
        pytest.param(
            {"containers": [container("1", "1Gi")], "overhead": {"cpu": "250m", "memory": "120Mi"}},
            {"cpu": "1250m", "memory": "1144Mi"},
            id="overhead",
        ),
        pytest.param(
            {
                "containers": [container("1", "1Gi", {"nvidia.com/gpu": "2"})],
                "resources": {"requests": {"cpu": "5", "hugepages-2Mi": "4Mi", "nvidia.com/gpu": "9"}},
                "overhead": {"cpu": "1"},
            },
            {"cpu": "6", "memory": "1Gi", "hugepages-2Mi": "4Mi", "nvidia.com/gpu": "2"},
            id="the whole Pod's, for what may be asked so",
        ),
    ],
)
def test_a_pod_asks_for(spec: dict[str, Any], expected: dict[str, str]) -> None:
    assert requests(spec) == numbers(expected)


AMOUNTS = st.fixed_dictionaries({}, optional={"cpu": st.integers(0, 9), "memory": st.integers(0, 9)})


@given(st.lists(st.tuples(st.booleans(), AMOUNTS), max_size=5), st.lists(AMOUNTS, max_size=4))
def test_a_pod_asks_for_the_most_that_it_needs_at_any_moment_of_its_life(
    init: list[tuple[bool, dict[str, int]]], main: list[dict[str, int]]
) -> None:
    def built(amounts: dict[str, int], sidecar: bool = False) -> dict[str, Any]:
        return container(more={name: str(amount) for name, amount in amounts.items()}, sidecar=sidecar)

    running: list[dict[str, int]] = []
    moments: list[list[dict[str, int]]] = []
    for sidecar, amounts in init:
        moments.append([*running, amounts])
        if sidecar:
            running.append(amounts)
    moments.append([*running, *main])
    spec = {"initContainers": [built(amounts, sidecar) for sidecar, amounts in init], "containers": [*map(built, main)]}
    asked = requests(spec)
    for name in ("cpu", "memory"):
        assert asked.get(name, 0) == max(sum(each.get(name, 0) for each in moment) for moment in moments)


def pod(
    name: str, node: str = "n1", cpu: str = "1", phase: str = "Running", labels: dict[str, str] | None = None
) -> Object:
    metadata = {"name": name, "namespace": "x", "uid": name, "resourceVersion": "5", "labels": labels or {}}
    spec = {"nodeName": node, "containers": [container(cpu, "1Gi")]} if node else {"containers": [container(cpu)]}
    return from_dict({"metadata": metadata, "spec": spec, "status": {"phase": phase, "conditions": ["…"] * 100}})


def test_of_anothers_pod_only_its_node_and_requests_are_kept() -> None:
    share = share_of("our-uid")(pod("a"))
    assert share is not None
    assert len(share.raw_spec) + len(share.raw_status) < 100
    assert (share.key.name, share.uid, share.version) == ("a", "a", 5)
    assert read_share(share) == ("n1", numbers({"pods": "1", "cpu": "1", "memory": "1Gi"}))


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(pod("a", node=""), id="not bound"),
        pytest.param(pod("a", phase="Succeeded"), id="succeeded"),
        pytest.param(pod("a", phase="Failed"), id="failed"),
        pytest.param(pod("a", labels={names.ORIGIN_CLUSTER_UID: "our-uid"}), id="ours"),
    ],
)
def test_a_pod_that_takes_no_room_we_do_not_know_of_is_not_kept(other: Object) -> None:
    assert share_of("our-uid")(other) is None


def test_a_pod_of_another_home_cluster_takes_room() -> None:
    assert share_of("our-uid")(pod("a", labels={names.ORIGIN_CLUSTER_UID: "their-uid"})) is not None


def raw_node(name: str = "n1", **changes: Any) -> dict[str, Any]:
    resources = {"cpu": "4", "memory": "8Gi", "pods": "110", "ephemeral-storage": "100Gi"}
    return {
        "metadata": {
            "name": name,
            "uid": name,
            "resourceVersion": "7",
            "labels": changes.get("labels", {}),
            "annotations": {"a": "b"},
        },
        "spec": changes.get("spec", {}),
        "status": {
            "capacity": resources,
            "allocatable": resources | {"cpu": "3500m", "attachable-volumes-ebs": "39"},
            "conditions": [
                {"type": "MemoryPressure", "status": "False"},
                {"type": "Ready", "status": changes.get("ready", "True"), "lastHeartbeatTime": changes.get("beat", "")},
            ],
            "nodeInfo": {"architecture": "arm64"},
            "declaredFeatures": ["A"],
            "images": [{"names": ["x" * 1000]}],
        },
    }


def taint(key: str, effect: str) -> dict[str, Any]:
    return {"spec": {"taints": [{"key": key, "effect": effect}]}}


@pytest.mark.parametrize(
    ("changes", "usable"),
    [
        ({}, True),
        ({"ready": "False"}, False),
        ({"ready": "Unknown"}, False),
        ({"spec": {"unschedulable": True}}, False),
        ({"labels": {"type": "virtual-kubelet"}}, False),
        ({"labels": {names.PEER: "third"}}, False),
        (taint("node-role.kubernetes.io/control-plane", "NoSchedule"), False),
        (taint("node.kubernetes.io/unreachable", "NoExecute"), False),
        (taint("node.kubernetes.io/disk-pressure", "PreferNoSchedule"), True),
        (taint("nvidia.com/gpu", "NoSchedule"), True),
    ],
)
def test_a_node_is_usable(changes: dict[str, Any], usable: bool) -> None:
    node = from_dict(raw_node(**changes))
    assert peer_node(node).usable is usable
    assert peer_node(slim_node(node)) == peer_node(node)


def test_a_heartbeat_does_not_change_what_is_kept_of_a_node() -> None:
    one, other = (
        slim_node(from_dict(raw_node(beat=beat))) for beat in ("2026-01-01T00:00:00Z", "2026-01-01T00:05:00Z")
    )
    assert one.same(other)
    assert len(one.raw_status) < 500


def peer(name: str, cpu: str, memory: str = "8Gi", **more: str) -> PeerNode:
    resources = numbers({"cpu": cpu, "memory": memory, "pods": "110", "ephemeral-storage": "100Gi", **more})
    return PeerNode(name, {"disk": "ssd"} if name == "n1" else {}, True, resources, resources)


def usage(*pods: Object) -> Usage:
    taken = Usage()
    for each in pods:
        taken.changed(None, share_of("our-uid")(each))
    return taken


def test_capacity_is_the_nodes_sum_and_allocatable_what_others_leave() -> None:
    seen = offered([peer("n1", "4", gpu="2"), peer("n2", "2")], usage(pod("a", cpu="1500m"), pod("b", "n2")), {})
    assert seen == Capacity(
        {"cpu": "6", "ephemeral-storage": "200Gi", "gpu": "2", "memory": "16Gi", "pods": "220"},
        {"cpu": "3500m", "ephemeral-storage": "200Gi", "gpu": "2", "memory": "14Gi", "pods": "218"},
    )


def test_a_node_with_more_asked_than_it_has_takes_nothing_from_the_others() -> None:
    seen = offered([peer("n1", "4"), peer("n2", "2")], usage(pod("a", cpu="9")), {})
    assert seen.allocatable["cpu"] == "2"


def test_pods_on_nodes_that_do_not_count_take_nothing() -> None:
    assert offered([peer("n1", "4")], usage(pod("a", "other-node")), {}).allocatable["cpu"] == "4"


def test_limits_cap_both_and_add_nothing() -> None:
    seen = offered([peer("n1", "4")], usage(pod("a")), {"cpu": "3500m", "memory": "1Ti", "pods": "20", "gpu": "8"})
    assert (seen.capacity["cpu"], seen.allocatable["cpu"]) == ("3500m", "3")
    assert (seen.capacity["memory"], seen.capacity["pods"], "gpu" in seen.capacity) == ("8Gi", "20", False)


def test_a_peer_without_nodes_still_names_the_four_resources() -> None:
    assert offered([], usage(), {}).capacity == {"cpu": "0", "ephemeral-storage": "0", "memory": "0", "pods": "0"}


def test_limits_alone_are_the_offer_where_nodes_may_not_be_listed() -> None:
    seen = limits_alone({"cpu": "100", "memory": "200Gi"})
    assert (
        seen.capacity == seen.allocatable == {"cpu": "100", "ephemeral-storage": "0", "memory": "200Gi", "pods": "110"}
    )
    assert limits_alone({"pods": "7"}).capacity["pods"] == "7"


def quota(namespace: str, hard: Mapping[str, str], **spec: Any) -> Object:
    meta = {"name": f"q-{len(hard)}", "namespace": namespace, "uid": "q"}
    return from_dict({"metadata": meta, "spec": {"hard": dict(hard), **spec}, "status": {"hard": dict(hard)}})


def test_the_quotas_of_a_few_namespaces_are_summed_the_least_in_each() -> None:
    quotas = [
        quota("team-a", {"requests.cpu": "4", "requests.memory": "8Gi", "pods": "10", "requests.example.com/gpu": "1"}),
        quota("team-a", {"cpu": "3", "count/pods": "20"}),
        quota("team-b", {"requests.cpu": "500m", "services": "1", "limits.cpu": "9"}),
        quota("team-b", {"requests.cpu": "1"}, scopes=["BestEffort"]),
        quota("team-c", {"pods": "1"}, scopeSelector={"matchExpressions": []}),
    ]
    seen = within_quotas(quotas, {})
    assert seen.capacity == seen.allocatable
    assert seen.capacity == {
        "cpu": "3500m",
        "ephemeral-storage": "0",
        "example.com/gpu": "1",
        "memory": "8Gi",
        "pods": "10",
    }
    assert within_quotas(quotas, {"cpu": "1", "ephemeral-storage": "5Gi"}).capacity["cpu"] == "1"
    assert within_quotas(quotas, {"ephemeral-storage": "5Gi"}).capacity["ephemeral-storage"] == "5Gi"


def test_what_is_no_amount_is_as_if_it_were_not_there() -> None:
    """A peer may say anything of itself, and one bad object is not to stop the others."""
    bad = {"cpu": "1e400000", "memory": "much", "ephemeral-storage": "-1", "pods": "7"}
    node = from_dict({"metadata": {"name": "n1", "uid": "n1"}, "status": {"capacity": bad, "allocatable": bad}})
    assert peer_node(slim_node(node)).allocatable == peer_node(slim_node(node)).capacity == {"pods": Decimal(7)}
    assert within_quotas([quota("a", bad)], {}).capacity == limits_alone({"pods": "7"}).capacity
    assert requests({"containers": [container("1e400000", "1Gi")]}) == numbers({"memory": "1Gi"})


def test_the_sum_of_the_largest_amounts_can_be_compared_again() -> None:
    largest = peer("n1", "9e30")
    seen = offered([largest] * 20, Usage(), {})
    assert seen.capacity["cpu"] == str(2**63 - 1)
    assert not notable(seen, seen)


def test_without_quotas_the_limits_say_it_all() -> None:
    assert within_quotas([], {"cpu": "2"}) == limits_alone({"cpu": "2"})
    assert within_quotas([quota("a", {"pods": "1"}, scopes=["Terminating"])], {}) == limits_alone({})


def test_only_nodes_of_the_selector_are_eligible() -> None:
    nodes = [peer("n1", "4"), peer("n2", "4")]
    assert [node.name for node in eligible(nodes, {"disk": "ssd"})] == ["n1"]
    assert eligible(nodes, {}) == nodes


@given(
    st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.sampled_from(["n1", "n2"]), st.integers(1, 4)), max_size=40)
)
def test_usage_told_change_by_change_is_that_of_the_pods_there(steps: list[tuple[int, bool, str, int]]) -> None:
    taken, there = Usage(), dict[int, Object]()
    for number, present, node, cpu in steps:
        now = share_of("our-uid")(pod(f"p{number}", node, str(cpu))) if present else None
        taken.changed(there.get(number), now)
        if now is not None:
            there[number] = now
        else:
            there.pop(number, None)
    fresh = Usage()
    for each in there.values():
        fresh.changed(None, each)
    for node in ("n1", "n2"):
        assert taken.on(node) == fresh.on(node)
        assert all(amount > 0 for amount in taken.on(node).values())


@given(st.lists(st.tuples(st.integers(0, 64), st.integers(0, 80)), max_size=5), st.none() | st.integers(0, 200))
def test_allocatable_is_never_negative_nor_more_than_capacity(nodes: list[tuple[int, int]], limit: int | None) -> None:
    peers = [peer(f"n{number}", str(cpu)) for number, (cpu, _) in enumerate(nodes)]
    taken = usage(*(pod(f"p{number}", f"n{number}", str(asked)) for number, (_, asked) in enumerate(nodes)))
    seen = offered(peers, taken, {} if limit is None else {"cpu": str(limit)})
    for name, text in seen.allocatable.items():
        assert 0 <= quantity(text) <= quantity(seen.capacity[name])


@pytest.mark.parametrize(
    ("before", "now", "at_once"),
    [("1000", "995", False), ("1000", "980", True), ("1", "0", True), ("0", "1", True), ("5", "5", False)],
)
def test_a_change_worth_a_write_at_once(before: str, now: str, at_once: bool) -> None:
    assert notable(Capacity({"cpu": "1000"}, {"cpu": before}), Capacity({"cpu": "1000"}, {"cpu": now})) is at_once


def test_any_change_of_capacity_is_worth_a_write() -> None:
    assert notable(Capacity({"cpu": "1000"}, {"cpu": "1"}), Capacity({"cpu": "1001"}, {"cpu": "1"}))
