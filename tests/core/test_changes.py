"""pods.changes: each edit a user may make reaches the mirror once, and nobody at the peer is fought with."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import ROUTE, container, mirror_of, pod
from tests.strategic import patched, raw
from vnode import names
from vnode.kube.objects import JsonDict, Object, from_dict
from vnode.pods.changes import creatable, in_step, patches
from vnode.pods.translate import remote_pod

NOT_READY = {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}
GPU = {"key": "gpu", "operator": "Exists"}
LIMITS = {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}
MORE = {"limits": {"cpu": "2"}, "requests": {"memory": "1Gi"}}


def wanted(local: Object) -> JsonDict:
    return remote_pod(local, ROUTE)


def brought_up(mirror: Object, local: Object) -> Object:
    """`mirror` after the patches `local` asks for."""
    for patch in patches(wanted(local), mirror):
        mirror = patched(mirror, patch.body)
    return mirror


def subresources(mirror: Object, local: Object) -> list[str]:
    return [patch.subresource for patch in patches(wanted(local), mirror)]


def changed(mirror: Object, **spec: Any) -> Object:
    """`mirror` after somebody at the peer has laid this over its spec."""
    body = raw(mirror)
    return from_dict({**body, "spec": {**body["spec"], **spec}})


def test_a_new_mirror_is_in_step() -> None:
    local = pod(labels={"app": "web"}, annotations={"a": "b"}, spec={"tolerations": [GPU]})
    assert in_step(wanted(local), mirror_of(local))


def test_a_mirror_is_created_without_ephemeral_containers_and_gets_them_after() -> None:
    local = pod(spec={"ephemeralContainers": [container("debug", "busybox")]})
    assert "ephemeralContainers" not in creatable(wanted(local))["spec"]
    mirror = mirror_of(local)
    assert subresources(mirror, local) == ["ephemeralcontainers", ""]
    mirror = brought_up(mirror, local)
    assert mirror.spec()["ephemeralContainers"] == [container("debug", "busybox")]
    assert in_step(wanted(local), mirror)


EDITS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "an image": ({}, {"spec": {"containers": [container(image="app:2")]}}),
    "an init container's image": (
        {"spec": {"initContainers": [container("first")]}},
        {"spec": {"initContainers": [container("first", "init:2")]}},
    ),
    "a deadline": ({}, {"spec": {"activeDeadlineSeconds": 30}}),
    "a toleration": ({"spec": {"tolerations": [GPU]}}, {"spec": {"tolerations": [GPU, NOT_READY]}}),
    "a new label": ({"labels": {"a": "1"}}, {"labels": {"a": "1", "b": "2"}}),
    "another value of a label": ({"labels": {"a": "1"}}, {"labels": {"a": "2"}}),
    "one label less": ({"labels": {"a": "1", "b": "2"}}, {"labels": {"b": "2"}}),
    "one annotation less": ({"annotations": {"a": "1"}}, {"annotations": {}}),
    "other resources": (
        {"spec": {"containers": [container(resources=LIMITS)]}},
        {"spec": {"containers": [container(resources=MORE)]}},
    ),
    "other resources of a sidecar": (
        {"spec": {"initContainers": [container("s", restartPolicy="Always", resources=LIMITS)]}},
        {"spec": {"initContainers": [container("s", restartPolicy="Always", resources=MORE)]}},
    ),
    "other resources of the Pod": ({"spec": {"resources": LIMITS}}, {"spec": {"resources": MORE}}),
    "resources where there were none": (
        {},
        {"spec": {"containers": [container(resources=LIMITS)], "resources": MORE}},
    ),
    "one more ephemeral container": (
        {"spec": {"ephemeralContainers": [container("one")]}},
        {"spec": {"ephemeralContainers": [container("one"), container("two")]}},
    ),
}


def compared(item: Object) -> JsonDict:
    """What an edit can change of a mirror, without our stamp."""
    annotations = {key: value for key, value in item.meta.annotations.items() if key != names.APPLIED}
    spec = {name: value for name, value in item.spec().items() if value != []}
    return {"labels": item.meta.labels, "annotations": annotations, "spec": spec}


@pytest.mark.parametrize("edit", sorted(EDITS))
def test_after_an_edit_the_mirror_is_as_if_made_from_it(edit: str) -> None:
    before, after = (pod(**fields) for fields in EDITS[edit])
    mirror = brought_up(mirror_of(before), before)
    assert not in_step(wanted(after), mirror)
    mirror = brought_up(mirror, after)
    assert in_step(wanted(after), mirror)
    assert compared(mirror) == compared(brought_up(mirror_of(after), after))


@pytest.mark.parametrize(
    ("edit", "through"),
    [
        ("an image", [""]),
        ("a toleration", [""]),
        ("one label less", [""]),
        ("other resources", ["resize", ""]),
        ("other resources of the Pod", ["resize", ""]),
        ("one more ephemeral container", ["ephemeralcontainers", ""]),
    ],
)
def test_an_edit_goes_through_its_subresource(edit: str, through: list[str]) -> None:
    before, after = (pod(**fields) for fields in EDITS[edit])
    assert subresources(brought_up(mirror_of(before), before), after) == through


def test_only_what_changed_is_sent() -> None:
    (patch,) = patches(wanted(pod(labels={"a": "2"})), mirror_of(pod(labels={"a": "1"})))
    assert set(patch.body) == {"metadata"}


def test_every_patch_is_for_exactly_this_mirror() -> None:
    after = pod(labels={"a": "1"}, spec={"ephemeralContainers": [container("e")], "resources": LIMITS})
    sent = patches(wanted(after), mirror_of(pod(), uid="r7"))
    assert {patch.body["metadata"]["uid"] for patch in sent} == {"r7"}


def test_a_change_that_is_homes_own_affair_sends_nothing() -> None:
    mirror = mirror_of(pod())
    assert patches(wanted(pod(generation=5, finalizers=["a/b"], status={"phase": "Running"})), mirror) == []


@pytest.mark.parametrize(
    "theirs",
    [
        {"labels": {"injected": "yes"}},
        {"annotations": {"injected": "yes"}},
        {"labels": {"app": "other"}},
    ],
)
def test_what_the_peer_writes_into_metadata_is_left_alone(theirs: JsonDict) -> None:
    local = pod(labels={"app": "web"})
    mirror = patched(mirror_of(local), {"metadata": {"uid": "r1", **theirs}})
    assert patches(wanted(local), mirror) == []


def test_what_the_peers_webhooks_make_of_the_spec_is_left_alone() -> None:
    local = pod()
    mirror = mirror_of(local)
    containers = [container(image="registry.peer/app:1", resources=LIMITS), container("mesh")]
    assert patches(wanted(local), changed(mirror, containers=containers, tolerations=[NOT_READY])) == []


def test_an_edit_keeps_what_the_peer_has_added() -> None:
    local = pod(labels={"app": "web"})
    mirror = patched(mirror_of(local), {"metadata": {"uid": "r1", "labels": {"injected": "yes"}}})
    mirror = changed(mirror, containers=[container(env=[{"name": "A"}]), container("mesh")], tolerations=[NOT_READY])
    after = pod(labels={"app": "shop"}, spec={"containers": [container(image="app:2")], "tolerations": [GPU]})
    mirror = brought_up(mirror, after)
    assert mirror.meta.labels == {**wanted(after)["metadata"]["labels"], "injected": "yes"}
    assert mirror.spec()["containers"] == [container(image="app:2", env=[{"name": "A"}]), container("mesh")]
    assert mirror.spec()["tolerations"] == [NOT_READY, GPU]


@pytest.mark.parametrize("stamp", [None, "", "{}", "[]", "no json", '{"labels":3}', '{"meta":null}'])
def test_a_stamp_that_was_written_over_is_made_good(stamp: str | None) -> None:
    local = pod(labels={"app": "web"}, spec={"containers": [container(resources=LIMITS)]})
    mirror = patched(mirror_of(local), {"metadata": {"uid": "r1", "annotations": {names.APPLIED: stamp}}})
    mirror = brought_up(mirror, local)
    assert in_step(wanted(local), mirror)
    assert compared(mirror) == compared(mirror_of(local))


def test_what_was_sent_in_part_is_sent_again() -> None:
    after = pod(spec={"containers": [container(image="app:2", resources=LIMITS)]})
    mirror = mirror_of(pod())
    first, *_ = patches(wanted(after), mirror)
    mirror = patched(mirror, first.body)  # and then vnode was killed
    assert subresources(mirror, after) == ["resize", ""]
    assert in_step(wanted(after), brought_up(mirror, after))


def test_a_resize_that_the_peer_refuses_keeps_no_later_edit_from_it() -> None:
    resized = pod(spec={"containers": [container(resources=LIMITS)]})
    mirror = mirror_of(pod())
    assert subresources(mirror, resized) == ["resize", ""]  # and the first was refused
    relabelled = pod(labels={"a": "1"}, spec={"containers": [container(resources=LIMITS)]})
    first, *rest = patches(wanted(relabelled), mirror)
    assert (first.subresource, first.body["metadata"]["labels"]["a"]) == ("", "1")
    assert [patch.subresource for patch in rest] == ["resize", ""]


def test_an_edit_of_something_else_leaves_the_images_that_the_peer_runs() -> None:
    tolerant = pod(spec={"tolerations": [{"key": "k", "operator": "Exists"}]})
    (patch,) = patches(wanted(tolerant), mirror_of(pod()))
    assert set(patch.body["spec"]) == {"tolerations"}


some = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.sampled_from(["1", "2"]), max_size=3)
states = st.builds(
    lambda labels, annotations, image, resources, debuggers: pod(
        labels=labels,
        annotations=annotations,
        spec={
            "containers": [container(image=image, resources=resources)],
            "ephemeralContainers": [container(f"debug{number}") for number in range(debuggers)],
        },
    ),
    some,
    some,
    st.sampled_from(["app:1", "app:2"]),
    st.sampled_from([LIMITS, MORE]),
    st.integers(0, 2),
)


@given(st.lists(states, min_size=1, max_size=5), some)
def test_any_series_of_edits_ends_in_step_and_keeps_the_peers_labels(
    series: list[Object], theirs: dict[str, str]
) -> None:
    theirs = {f"peer/{key}": value for key, value in theirs.items()}
    mirror = patched(mirror_of(series[0]), {"metadata": {"uid": "r1", "labels": theirs}})
    for local in series:
        mirror = brought_up(mirror, local)
        assert in_step(wanted(local), mirror)
        assert mirror.meta.labels == {**wanted(local)["metadata"]["labels"], **theirs}
        assert compared(mirror)["annotations"] == wanted(local)["metadata"]["annotations"]
        (held,) = mirror.spec()["containers"]
        (asked,) = local.spec()["containers"]
        assert (held["image"], held["resources"]) == (asked["image"], asked["resources"])
