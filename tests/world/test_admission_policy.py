"""deploy/base/admission-policy.yaml on a real apiserver: who asks for a virtual node gets the toleration, none else."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.expect import eventually
from tests.world.api import Api, Json
from vnode import names
from vnode.devcluster.cluster import Cluster

POLICY = Path(__file__).parents[2] / "deploy" / "base" / "admission-policy.yaml"
OURS = {"key": names.PEER, "operator": "Exists", "effect": "NoSchedule"}
SEED = {"nodeSelector": {names.PEER: "nowhere"}}


def manifest(name: str, spec: Json) -> Json:
    containers = [{"name": "c", "image": "x"}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": containers, **spec}}


@pytest.fixture(scope="module")
def api(home: Cluster) -> Iterator[Api]:
    """Home with the policy in force, but so that an expression that fails refuses the Pod: ignored, it would not show.

    As shipped it stays afterwards, as every home of virtual nodes may have it.
    """
    shipped = POLICY.read_text()
    strict = shipped.replace("failurePolicy: Ignore", "failurePolicy: Fail")
    assert strict != shipped
    home.plane.kubectl("apply", "-f", "-", input=strict)
    at_home = Api(home.plane)
    eventually("the policy is in force", lambda: OURS in tolerations(at_home, SEED))
    yield at_home
    home.plane.kubectl("apply", "-f", "-", input=shipped)


def tolerations(api: Api, spec: Json) -> list[Json]:
    """The tolerations that a Pod of this spec comes to have, less those of DefaultTolerationSeconds."""
    pod = api.create(manifest("asks", {**spec, "schedulerName": "nobody"}), "default")
    api.delete("Pod", "default", "asks", 0)
    given: list[Json] = pod["spec"].get("tolerations", [])
    return [each for each in given if not each.get("key", "").startswith("node.kubernetes.io/")]


def required(*terms: list[Json], **other: Any) -> Json:
    """Node affinity of terms of expressions, and one of what else a term may have."""
    built: list[Json] = [{"matchExpressions": term} if term else {} for term in terms]
    selector = {"nodeSelectorTerms": [*built, other] if other else built}
    return {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": selector}}}


def wants(key: str, operator: str, *values: str) -> Json:
    return {"key": key, "operator": operator} | ({"values": list(values)} if values else {})


ZONE = wants("topology.kubernetes.io/zone", "In", "a")
PREFERRED = {"weight": 1, "preference": {"matchExpressions": [wants(names.PEER, "Exists")]}}


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"nodeSelector": {names.PEER: "edge"}}, id="selects a peer"),
        pytest.param({"nodeSelector": {"type": "virtual-kubelet", "a": "b"}}, id="selects any virtual node"),
        pytest.param(required([wants(names.PEER, "In", "edge", "far")]), id="requires one of some peers"),
        pytest.param(required([ZONE, wants(names.PEER, "Exists")]), id="requires a peer in a zone"),
        pytest.param(required([ZONE], [wants("type", "In", "x", "virtual-kubelet")]), id="by the second term"),
        pytest.param(
            {"nodeSelector": {"a": "b"}, **required([wants(names.PEER, "Exists")])}, id="selects another label as well"
        ),
    ],
)
def test_a_pod_that_asks_for_a_virtual_node_tolerates_it(api: Api, spec: Json) -> None:
    assert tolerations(api, spec) == [OURS]


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({}, id="asks for nothing"),
        pytest.param({"nodeSelector": {}}, id="empty selector"),
        pytest.param({"nodeSelector": {"type": "kwok"}}, id="another type"),
        pytest.param({"affinity": {}}, id="empty affinity"),
        pytest.param({"affinity": {"podAntiAffinity": {}, "nodeAffinity": {}}}, id="empty node affinity"),
        pytest.param(required([], [ZONE]), id="another requirement"),
        pytest.param(
            required(matchFields=[{"key": "metadata.name", "operator": "In", "values": ["n"]}]),
            id="a field, as DaemonSets",
        ),
        pytest.param(required([wants(names.PEER, "DoesNotExist")]), id="requires no peer"),
        pytest.param(required([wants(names.PEER, "NotIn", "edge")]), id="requires another than this peer"),
        pytest.param(required([wants("type", "NotIn", "virtual-kubelet")]), id="requires no virtual node"),
        pytest.param(required([wants("type", "Exists")]), id="requires any type"),
        pytest.param(
            {"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [PREFERRED]}}},
            id="only prefers a peer",
        ),
    ],
)
def test_a_pod_that_does_not_ask_stays_as_it_is(api: Api, spec: Json) -> None:
    assert tolerations(api, spec) == []


@pytest.mark.parametrize(
    "typed",
    [
        OURS,
        {"key": names.PEER, "operator": "Equal", "value": "edge", "effect": "NoSchedule"},
        {"key": names.PEER, "operator": "Exists"},
        {"operator": "Exists"},
    ],
)
def test_a_toleration_typed_stands_alone(api: Api, typed: Json) -> None:
    assert tolerations(api, {**SEED, "tolerations": [typed]}) == [typed]


@pytest.mark.parametrize(
    "typed",
    [
        {"key": "gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"key": names.PEER, "operator": "Exists", "effect": "NoExecute"},
        {"key": "gpu", "value": "x"},
    ],
)
def test_other_tolerations_are_kept(api: Api, typed: Json) -> None:
    given = tolerations(api, {**SEED, "tolerations": [typed]})
    assert len(given) == 2
    assert given[0].items() >= typed.items()
    assert given[1] == OURS


def test_pods_of_a_deployment_get_it_too(api: Api) -> None:
    template = {
        "metadata": {"labels": {"app": "asks"}},
        "spec": manifest("", {**SEED, "schedulerName": "nobody"})["spec"],
    }
    spec = {"selector": {"matchLabels": {"app": "asks"}}, "template": template}
    api.create({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "asks"}, "spec": spec}, "default")
    try:
        pods = eventually("its Pod is there", lambda: api.list("Pod", "default", "app=asks"))
        assert OURS in pods[0]["spec"]["tolerations"]
    finally:
        api.delete("Deployment", "default", "asks")
