"""A peer's overrides: what each makes of the Pod that runs there, what it can never undo, and what it refuses."""

import copy
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import NOW, ROUTE, VIEW, container, mirror_of, pod
from tests.strategic import raw
from vnode import names
from vnode.kube.objects import JsonDict, Object, from_dict
from vnode.kube.podspec import misfit
from vnode.pods.changes import creatable, patches
from vnode.pods.plan import Refuse, plan
from vnode.pods.surroundings import needs
from vnode.pods.translate import references, remote_pod
from vnode.policy.images import rewritten
from vnode.policy.overrides import ImageRule, Override
from vnode.policy.rewrite import overridden
from vnode.policy.route import Reference, Refused, Route, local_key

POOL = {"key": "pool", "operator": "Exists"}
OFF_VIRTUAL = [
    {"key": "type", "operator": "NotIn", "values": ["virtual-kubelet"]},
    {"key": names.PEER, "operator": "DoesNotExist"},
]


def route_of(*overrides: JsonDict, **fields: Any) -> Route:
    """The usual route with these overrides, as the configuration says them."""
    return replace(ROUTE, overrides=msgspec.convert(overrides, tuple[Override, ...]), **fields)


def made(local: Object, *overrides: JsonDict) -> JsonDict:
    return remote_pod(local, route_of(*overrides))


def spec_of(override: JsonDict, **spec: Any) -> JsonDict:
    """The spec at the peer of a Pod that has this one at home."""
    result: JsonDict = made(pod(spec=spec), override)["spec"]
    return result


def container_of(rule: JsonDict, **fields: Any) -> JsonDict:
    """What a container rule makes of a container with these fields."""
    (result,) = spec_of({"containers": [rule]}, containers=[container(**fields)])["containers"]
    return {name: value for name, value in result.items() if name not in ("name", "image")}


# --- images ---


@pytest.mark.parametrize(
    ("rule", "image", "there"),
    [
        ({"prefix": "docker.io/", "to": "mirror:5000/hub/"}, "docker.io/a/b:1", "mirror:5000/hub/a/b:1"),
        ({"prefix": "docker.io/", "to": "mirror:5000/hub/"}, "a/b", "mirror:5000/hub/a/b"),
        ({"prefix": "docker.io/", "to": "mirror:5000/hub/"}, "nginx:1", "mirror:5000/hub/library/nginx:1"),
        ({"prefix": "docker.io/library/", "to": "m/"}, "docker.io/nginx", "m/nginx"),
        ({"prefix": "docker.io", "to": "mirror.edge"}, "nginx", "mirror.edge/library/nginx"),
        ({"prefix": "docker.io/", "to": "m/"}, "localhost/nginx", "localhost/nginx"),
        ({"prefix": "docker.io/", "to": "m/"}, "quay.io/nginx", "quay.io/nginx"),
        ({"prefix": "docker.io/", "to": "m/"}, "host:5000/nginx", "host:5000/nginx"),
        ({"prefix": "nginx", "to": "proxy"}, "nginx:1", "proxy:1"),
        ({"prefix": "nginx", "to": "proxy"}, "nginx@sha256:ab", "proxy@sha256:ab"),
        ({"prefix": "nginx", "to": "proxy"}, "nginx", "proxy"),
        ({"prefix": "nginx", "to": "proxy"}, "nginx-unit:1", "nginx-unit:1"),
        ({"prefix": "quay.io/acme", "to": "quay.io/team"}, "quay.io/acme/app:1", "quay.io/team/app:1"),
        ({"prefix": "quay.io/acme", "to": "quay.io/team"}, "quay.io/acmecorp/app:1", "quay.io/acmecorp/app:1"),
        ({"prefix": "q.io/", "to": "q.io/mirror/"}, "q.io/a:1", "q.io/mirror/a:1"),
        ({"prefix": "q.io/", "to": "q.io/mirror/"}, "q.io/mirror/a:1", "q.io/mirror/a:1"),
        ({"prefix": "q.io/", "tag": "stable"}, "q.io/a:1", "q.io/a:stable"),
        ({"prefix": "q.io/", "tag": "stable"}, "q.io/a@sha256:ab", "q.io/a:stable"),
        ({"prefix": "q.io:5000/", "tag": "stable"}, "q.io:5000/a", "q.io:5000/a:stable"),
        ({"prefix": "q.io/", "to": "m/", "tag": "2"}, "q.io/a:1@sha256:ab", "m/a:2"),
        ({"exact": "nginx:1", "to": "m/nginx:2"}, "docker.io/library/nginx:1", "m/nginx:2"),
        ({"exact": "nginx", "to": "m/nginx"}, "nginx:latest", "m/nginx"),
        ({"exact": "nginx", "to": "m/nginx"}, "nginx:1", "nginx:1"),
        ({"exact": "nginx", "to": "m/nginx"}, "nginx@sha256:ab", "nginx@sha256:ab"),
        ({"exact": "nginx", "tag": "1"}, "nginx", "nginx:1"),
    ],
)
def test_an_image_rule_renames_what_fits_it_and_nothing_else(rule: JsonDict, image: str, there: str) -> None:
    assert rewritten(image, [msgspec.convert(rule, ImageRule)]) == there


def test_the_first_image_rule_that_fits_is_the_one() -> None:
    rules = [{"exact": "q.io/a:1", "to": "first:1"}, {"prefix": "q.io", "to": "second"}, {"prefix": "first", "to": "x"}]
    listed = [container("one", "q.io/a:1"), container("two", "q.io/b:1"), container("three", "other")]
    spec = spec_of({"images": rules}, containers=listed)
    assert [each["image"] for each in spec["containers"]] == ["first:1", "second/b:1", "other"]


@pytest.mark.parametrize("listed", ["initContainers", "containers", "ephemeralContainers"])
def test_every_container_gets_its_image_from_there(listed: str) -> None:
    spec = spec_of({"images": [{"prefix": "app", "to": "m/app"}]}, **{listed: [container()]})
    assert spec[listed] == [container(image="m/app:1")]


# --- containers ---

SECRET = {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}


@pytest.mark.parametrize(
    ("rule", "fields", "there"),
    [
        ({"env": {"A": "x"}}, {}, {"env": [{"name": "A", "value": "x"}]}),
        (
            {"env": {"A": "x", "C": "y"}},
            {"env": [SECRET, {"name": "B", "value": "$(A)"}]},
            {"env": [{"name": "A", "value": "x"}, {"name": "B", "value": "$(A)"}, {"name": "C", "value": "y"}]},
        ),
        (
            {"unsetEnv": ["A", "Z"]},
            {"env": [SECRET, {"name": "B", "value": "b"}]},
            {"env": [{"name": "B", "value": "b"}]},
        ),
        ({"command": ["run"], "args": []}, {"command": ["go"], "args": ["-x"]}, {"command": ["run"], "args": []}),
        ({"args": ["-y"]}, {"command": ["go"], "args": ["-x"]}, {"command": ["go"], "args": ["-y"]}),
    ],
)
def test_environment_command_and_arguments(rule: JsonDict, fields: JsonDict, there: JsonDict) -> None:
    assert container_of(rule, **fields) == there


@pytest.mark.parametrize(
    ("rule", "amounts", "there"),
    [
        ({"scale": {"cpu": "0.5"}}, {"cpu": "1"}, {"cpu": "500m"}),
        ({"scale": {"cpu": "0.333"}}, {"cpu": "100m"}, {"cpu": "34m"}),
        ({"scale": {"cpu": "2"}}, {"cpu": "1500m"}, {"cpu": "3"}),
        ({"scale": {"memory": "1.5"}}, {"memory": "1Gi"}, {"memory": "1536Mi"}),
        ({"scale": {"memory": "0.3"}}, {"memory": "128Mi"}, {"memory": "40265319"}),
        ({"scale": {"example.com/gpu": "0.5"}}, {"example.com/gpu": "3"}, {"example.com/gpu": "2"}),
        ({"scale": {"cpu": "0.5"}}, {"memory": "1Gi"}, {"memory": "1Gi"}),
        ({"cap": {"cpu": "1"}}, {"cpu": "2", "memory": "1Gi"}, {"cpu": "1", "memory": "1Gi"}),
        ({"cap": {"cpu": "1"}}, {"cpu": "900m"}, {"cpu": "900m"}),
        ({"cap": {"cpu": "1"}}, {"memory": "1Gi"}, {"memory": "1Gi"}),
        ({"scale": {"cpu": "4"}, "cap": {"cpu": "3"}}, {"cpu": "1"}, {"cpu": "3"}),
        ({"scale": {"cpu": "4"}, "requests": {"cpu": "2"}, "limits": {"cpu": "2"}}, {"cpu": "1"}, {"cpu": "2"}),
    ],
)
def test_resources_are_scaled_then_set_then_capped(rule: JsonDict, amounts: JsonDict, there: JsonDict) -> None:
    resources = {"requests": amounts, "limits": amounts, "claims": [{"name": "c"}]}
    expected = {"requests": there, "limits": there, "claims": [{"name": "c"}]}
    assert container_of({"resources": rule}, resources=resources) == {"resources": expected}


def test_resources_can_be_set_where_there_are_none_and_a_cap_makes_none() -> None:
    assert container_of({"resources": {"requests": {"cpu": "1"}}}) == {"resources": {"requests": {"cpu": "1"}}}
    assert container_of({"resources": {"cap": {"cpu": "1"}}}) == {"resources": {}}


def test_a_named_rule_is_for_that_container_alone_and_rules_follow_each_other() -> None:
    rules: list[JsonDict] = [
        {"env": {"A": "all"}},
        {"name": "side", "env": {"A": "side"}},
        {"name": "absent", "args": []},
    ]
    spec = spec_of(
        {"containers": rules}, initContainers=[container("first")], containers=[container("main"), container("side")]
    )
    found = {each["name"]: each["env"][0]["value"] for each in (*spec["initContainers"], *spec["containers"])}
    assert found == {"first": "all", "main": "all", "side": "side"}


def test_ephemeral_containers_keep_what_their_user_gave_them() -> None:
    spec = spec_of({"containers": [{"env": {"A": "x"}}]}, ephemeralContainers=[container("debug")])
    assert spec["ephemeralContainers"] == [container("debug")]


# --- placement ---


def test_the_peers_node_labels_and_tolerations_are_added() -> None:
    override = {"nodeSelector": {"disk": "ssd"}, "tolerations": [POOL]}
    selector = {"kubernetes.io/arch": "arm64", names.PEER: "edge"}
    theirs = {"key": "own", "operator": "Exists"}
    spec = spec_of(override, nodeSelector=selector, tolerations=[theirs, POOL, {"key": names.PEER}])
    assert spec["nodeSelector"] == {"kubernetes.io/arch": "arm64", "disk": "ssd"}
    assert spec["tolerations"] == [theirs, POOL]


def test_affinity_and_spread_stand_in_place_of_homes_part_by_part() -> None:
    term = {"topologyKey": "rack", "labelSelector": {"matchLabels": {"a": "b"}}}
    anti = {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
    nodes = {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [POOL]}, {"matchFields": [{"key": "metadata.name"}]}]
        }
    }
    spread = [{"topologyKey": "rack", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}]
    home = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "zone"}]}}
    override = {"affinity": {"podAffinity": anti, "nodeAffinity": nodes}, "topologySpreadConstraints": spread}
    spec = spec_of(override, affinity=home, topologySpreadConstraints=[{"topologyKey": "zone", "maxSkew": 1}])
    assert spec["topologySpreadConstraints"] == spread
    assert spec["affinity"]["podAntiAffinity"] == home["podAntiAffinity"]
    assert spec["affinity"]["podAffinity"] == anti
    assert spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"] == [
        {"matchExpressions": [POOL, *OFF_VIRTUAL]},
        {"matchFields": [{"key": "metadata.name"}], "matchExpressions": OFF_VIRTUAL},
    ]
    assert "topologySpreadConstraints" not in spec_of(
        {"topologySpreadConstraints": []}, topologySpreadConstraints=spread
    )


@pytest.mark.parametrize(
    "override",
    [
        {"affinity": {"nodeAffinity": {}}},
        {"patch": [{"op": "add", "path": "/spec/affinity", "value": {"nodeAffinity": None}}]},
        {"patch": [{"op": "add", "path": "/spec/nodeSelector", "value": {"pool": "another"}}]},
        {"nodeSelector": {"pool": "another"}},
    ],
)
def test_no_override_leads_to_a_virtual_node_or_out_of_the_nodes_that_ours_stands_for(override: JsonDict) -> None:
    spec = remote_pod(pod(), route_of(override, node_selector={"pool": "shared"}))["spec"]
    assert spec["nodeSelector"] == {"pool": "shared"}
    required = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert required == {"nodeSelectorTerms": [{"matchExpressions": OFF_VIRTUAL}]}


# --- classes, pull secrets, metadata, volumes ---


@pytest.mark.parametrize(
    ("classes", "here", "there"),
    [
        ({"fast": "edge-fast"}, "fast", "edge-fast"),
        ({"fast": "edge-fast"}, "slow", "slow"),
        ({"fast": ""}, "fast", None),
        ({"fast": "edge-fast", "*": ""}, "slow", None),
        ({"*": "edge"}, "slow", "edge"),
        ({"*": "edge"}, None, None),
    ],
)
@pytest.mark.parametrize(
    ("field", "name"), [("runtimeClasses", "runtimeClassName"), ("priorityClasses", "priorityClassName")]
)
def test_classes_have_their_names_at_the_peer(
    field: str, name: str, classes: dict[str, str], here: str | None, there: str | None
) -> None:
    assert spec_of({field: classes}, **({name: here} if here else {})).get(name) == there


def test_pull_secrets_are_added_and_wanted_where_home_has_them() -> None:
    spec = spec_of({"imagePullSecrets": ["mine", "edge"]}, imagePullSecrets=[{"name": "mine"}])
    assert spec["imagePullSecrets"] == [{"name": "mine"}, {"name": "edge"}]
    assert references(spec) == {Reference("Secret", "mine", True), Reference("Secret", "edge", True)}


def test_labels_and_annotations_are_added_or_changed() -> None:
    override = {"labels": {"app": "other", "tier": "1"}, "annotations": {"note": "edge"}}
    metadata = made(pod(labels={"app": "web", "a": "b"}, annotations={"c": "d"}), override)["metadata"]
    assert metadata["labels"] == {"app": "other", "tier": "1", "a": "b", **ROUTE.labels}
    assert {key: metadata["annotations"][key] for key in ("note", "c")} == {"note": "edge", "c": "d"}


def test_a_volume_is_replaced_where_the_pod_has_it_even_one_that_could_not_travel() -> None:
    local = [{"name": "data", "hostPath": {"path": "/srv"}}]
    claim = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}, {"name": "tmp", "emptyDir": {}}]
    with pytest.raises(Refused):
        spec_of({"labels": {"a": "b"}}, volumes=claim)
    assert spec_of({"volumes": local}, volumes=claim)["volumes"] == [local[0], claim[1]]
    assert "volumes" not in spec_of({"volumes": local})


def test_what_a_replaced_volume_names_is_wanted_and_what_it_replaces_is_not() -> None:
    home = [{"name": "data", "configMap": {"name": "home"}}]
    spec = spec_of({"volumes": [{"name": "data", "secret": {"secretName": "edge"}}]}, volumes=home)
    assert references(spec) == {Reference("Secret", "edge")}


# --- which Pods ---


@pytest.mark.parametrize(
    ("scope", "met"),
    [
        ({}, True),
        ({"namespaces": ["shop"]}, True),
        ({"namespaces": ["other"]}, False),
        ({"selector": {"matchLabels": {"app": "web"}}}, True),
        ({"selector": {"matchLabels": {"app": "db"}}}, False),
        ({"selector": {"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}}, False),
        ({"selector": {"matchLabels": {"app": "web"}}, "namespaces": ["other"]}, False),
    ],
)
def test_an_override_is_for_the_pods_it_selects_at_home(scope: JsonDict, met: bool) -> None:
    override = {**scope, "labels": {"met": "yes"}, "volumes": [{"name": "v", "hostPath": {"path": "/"}}]}
    there = made(pod(labels={"app": "web"}, spec={"volumes": [{"name": "v", "emptyDir": {}}]}), override)
    assert ("met" in there["metadata"]["labels"]) is met
    assert ("hostPath" in there["spec"]["volumes"][0]) is met


def test_overrides_follow_each_other_and_select_by_homes_labels() -> None:
    chosen = {"matchLabels": {"app": "web"}}
    first = {"labels": {"app": "changed"}, "patch": [{"op": "add", "path": "/spec/hostname", "value": "one"}]}
    second = {"selector": chosen, "patch": [{"op": "replace", "path": "/spec/hostname", "value": "two"}]}
    there = made(pod(labels={"app": "web"}), first, second)
    assert (there["metadata"]["labels"]["app"], there["spec"]["hostname"]) == ("changed", "two")


# --- JSON patches ---


def test_a_patch_has_the_last_word_on_the_spec() -> None:
    override = {
        "images": [{"prefix": "app", "to": "m/app"}],
        "patch": [
            {"op": "test", "path": "/spec/containers/0/image", "value": "m/app:1"},
            {"op": "add", "path": "/spec/containers/0/workingDir", "value": "/srv"},
            {"op": "add", "path": "/metadata/annotations/example.com~1a", "value": "b"},
            {"op": "replace", "path": "/spec/serviceAccountName", "value": "robot"},
            {"op": "copy", "from": "/spec/serviceAccountName", "path": "/metadata/labels/account"},
        ],
    }
    there = made(pod(), override)
    assert there["spec"]["containers"] == [container(image="m/app:1", workingDir="/srv")]
    assert there["spec"]["serviceAccountName"] == "robot"
    assert there["metadata"]["annotations"]["example.com/a"] == "b"
    assert there["metadata"]["labels"]["account"] == "robot"


def test_a_patch_that_writes_into_its_own_values_does_the_same_each_time() -> None:
    override = {
        "tolerations": [POOL],
        "patch": [
            {"op": "add", "path": "/spec/containers/0/securityContext", "value": {"capabilities": {"add": ["A"]}}},
            {"op": "add", "path": "/spec/containers/0/securityContext/capabilities/add/-", "value": "B"},
            {"op": "add", "path": "/spec/tolerations/0/effect", "value": "NoSchedule"},
        ],
    }
    route = route_of(override)
    before = copy.deepcopy(route.overrides)
    first = copy.deepcopy(remote_pod(pod(), route))
    assert first["spec"]["containers"][0]["securityContext"] == {"capabilities": {"add": ["A", "B"]}}
    assert remote_pod(pod(), route) == first
    assert route.overrides == before


@pytest.mark.parametrize(
    ("operation", "told"),
    [
        ({"op": "remove", "path": "/spec/hostname"}, "remove /spec/hostname: there is no such place in the Pod"),
        ({"op": "add", "path": "/spec/containers/9/env", "value": []}, "there is no such place in the Pod"),
        ({"op": "add", "path": "/spec/containers/x", "value": {}}, "there is no such place in the Pod"),
        ({"op": "move", "from": "/spec/none", "path": "/spec/hostname"}, "there is no such place in the Pod"),
        (
            {"op": "test", "path": "/spec/containers/0/image", "value": "b"},
            "test /spec/containers/0/image: the test does not hold",
        ),
    ],
)
def test_a_patch_that_does_not_fit_refuses_the_pod_and_says_where(operation: JsonDict, told: str) -> None:
    fits = {"op": "add", "path": "/spec/hostname2", "value": "word"}
    with pytest.raises(Refused) as refusal:
        made(
            pod(spec={"containers": [container(env=[{"name": "A", "value": "private"}])]}),
            {},
            {"patch": [fits, operation]},
        )
    assert refusal.value.reason == names.OVERRIDE_FAILED
    assert str(refusal.value).startswith("overrides[1].patch[1]: ")
    assert str(refusal.value).endswith(told)
    assert "private" not in str(refusal.value)


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "replace", "path": "/spec/containers", "value": 5},
        {"op": "remove", "path": "/spec/containers/0"},
        {"op": "replace", "path": "/spec/containers/0", "value": "x"},
        {"op": "remove", "path": "/spec/containers/0/name"},
        {"op": "remove", "path": "/spec/containers/0/image"},
        {"op": "add", "path": "/spec/volumes", "value": [{"name": "v", "configMap": 5}]},
        {"op": "add", "path": "/spec/volumes", "value": [{"name": "v", "csi": {"nodePublishSecretRef": 5}}]},
        {"op": "add", "path": "/spec/volumes", "value": [{"emptyDir": {}}]},
        {"op": "add", "path": "/spec/imagePullSecrets", "value": ["x"]},
        {"op": "add", "path": "/spec/containers/0/envFrom", "value": [{"secretRef": []}]},
        {
            "op": "add",
            "path": "/spec/affinity",
            "value": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": []}},
        },
        {"op": "add", "path": "/spec/tolerations", "value": {}},
        {"op": "add", "path": "/metadata/labels/a", "value": 5},
    ],
)
def test_a_patch_that_leaves_no_pod_is_refused(operation: JsonDict) -> None:
    with pytest.raises(Refused, match=r"^overrides\[0\]\.patch: leaves no sound Pod: ") as refusal:
        made(pod(), {"patch": [operation]})
    assert refusal.value.reason == names.OVERRIDE_FAILED


def test_amounts_that_are_none_are_refused_too() -> None:
    broken = {"op": "add", "path": "/spec/containers/0/resources", "value": {"requests": {"cpu": "much"}}}
    with pytest.raises(Refused, match=r"^overrides\[1\]\.containers\[0\]: container main: 'much' is not a quantity"):
        made(pod(), {"patch": [broken]}, {"containers": [{"resources": {"cap": {"cpu": "1"}}}]})


# --- a Pod that runs already ---


def test_a_new_configuration_reaches_a_running_pod_by_what_can_be_changed_in_place() -> None:
    local = pod(spec={"containers": [container(resources={"requests": {"cpu": "2"}})]})
    changed = {
        "images": [{"prefix": "app", "to": "m/app"}],
        "containers": [{"env": {"A": "x"}, "resources": {"cap": {"cpu": "1"}}}],
        "labels": {"tier": "1"},
        "tolerations": [POOL],
        "nodeSelector": {"disk": "ssd"},
        "patch": [
            {"op": "add", "path": "/spec/containers/-", "value": container("mesh", resources={"limits": {"cpu": "1"}})}
        ],
    }
    edit, resize, _ = patches(made(local, changed), mirror_of(local))
    assert edit.body["metadata"]["labels"]["tier"] == "1"
    assert edit.body["spec"] == {"containers": [{"name": "main", "image": "m/app:1"}], "tolerations": [POOL]}
    assert [each["name"] for each in resize.body["spec"]["containers"]] == ["main"]


def test_a_new_configuration_that_does_not_fit_is_told_on_a_pod_that_runs() -> None:
    broken = route_of({"patch": [{"op": "remove", "path": "/spec/none"}]})
    local = pod(status={"phase": "Pending"})
    assert plan(local, mirror_of(local, status=local.status()), None, broken, VIEW, NOW) == Refuse(
        names.OVERRIDE_FAILED, "overrides[0].patch[0]: remove /spec/none: there is no such place in the Pod"
    )


FROM_CONFIG = {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "a"}}}
SETTINGS = Reference("ConfigMap", "settings")


@pytest.mark.parametrize(
    "override",
    [{"containers": [{"env": {"A": "x"}}]}, {"patch": [{"op": "remove", "path": "/spec/none"}]}],
    ids=["leaves it out", "does not fit"],
)
def test_a_pod_that_runs_keeps_what_it_was_made_with_and_no_more(override: JsonDict) -> None:
    local, new = pod(spec={"containers": [container(env=[FROM_CONFIG])]}), route_of(override)
    assert needs(local, None, ROUTE, lambda *_: False) == {SETTINGS}
    assert needs(local, mirror_of(local), new, lambda *_: True) == {SETTINGS}
    assert needs(local, None, new, lambda *_: True) == set()
    assert needs(local, mirror_of(local), new, lambda *_: False) == set()  # never copied for it
    # The peer says that the mirror has it, and home's Pod knows nothing of it.
    assert needs(pod(), mirror_of(local), new, lambda *_: True) == set()


# --- for any overrides ---

words = st.sampled_from(["a", "b", "c", "app", "shop", "v"])
amounts = st.dictionaries(st.sampled_from(["cpu", "memory"]), st.sampled_from(["1", "500m", "2", "3"]), max_size=2)
keys = st.sampled_from(["a", "app", *ROUTE.labels, names.ORIGIN_UID, names.ORIGIN_NAMESPACE, names.APPLIED])
texts = st.dictionaries(keys, words, max_size=3)
resource_rules = {"requests": amounts, "limits": amounts, "cap": amounts}
container_rules = {
    "name": st.sampled_from(["", "main", "first"]),
    "env": st.dictionaries(words, words, max_size=2),
    "unsetEnv": st.lists(words, max_size=2),
    "command": st.none() | st.lists(words, max_size=2),
    "args": st.none() | st.lists(words, max_size=2),
}
image_rules = st.fixed_dictionaries(
    {}, optional={"prefix": st.just("app"), "to": st.sampled_from(["m/app", "app/app"]), "tag": words}
).filter(lambda rule: "prefix" in rule and len(rule) > 1)
values = st.recursive(
    st.none() | words | st.integers(0, 3),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["name", "image", "a"]), inner, max_size=3)
    ),
    max_leaves=4,
)
places = st.sampled_from(
    [
        "/spec/containers",
        "/spec/containers/0",
        "/spec/containers/0/image",
        "/spec/containers/-",
        "/spec/initContainers",
        "/spec/volumes",
        "/spec/affinity",
        "/spec/affinity/nodeAffinity",
        "/spec/tolerations",
        "/spec/nodeSelector",
        "/spec/nodeName",
        "/spec/imagePullSecrets",
        "/spec/a~1b",
        "/metadata/labels/a",
        "/metadata/annotations/a",
    ]
)
operations = st.builds(
    lambda op, path, source, value: {"op": op, "path": path, "from": source, "value": value},
    st.sampled_from(["add", "remove", "replace", "move", "copy", "test"]),
    places,
    places,
    values,
)


def declared(more: dict[str, st.SearchStrategy[Any]], resources: dict[str, st.SearchStrategy[Any]]) -> Any:
    """Overrides of every kind but JSON patches, which say what is to be, plus `more`."""
    one = {**container_rules, "resources": st.fixed_dictionaries({}, optional=resources)}
    return st.fixed_dictionaries(
        {},
        optional={
            "images": st.lists(image_rules, max_size=1),
            "containers": st.lists(st.fixed_dictionaries({}, optional=one), max_size=2),
            "nodeSelector": st.dictionaries(words, words, max_size=2),
            "tolerations": st.lists(st.builds(lambda key: {"key": key}, words), max_size=2),
            "affinity": st.sampled_from([{}, {"nodeAffinity": {}}, {"podAffinity": {}}]),
            "topologySpreadConstraints": st.none() | st.just([{"topologyKey": "rack"}]),
            "runtimeClasses": st.sampled_from([{}, {"a": ""}, {"*": "b"}]),
            "priorityClasses": st.sampled_from([{}, {"a": ""}, {"*": "b"}]),
            "imagePullSecrets": st.lists(words, max_size=2),
            "labels": texts,
            "annotations": texts,
            "volumes": st.lists(st.just({"name": "v", "hostPath": {"path": "/"}}), max_size=1),
            **more,
        },
    )


pods = st.builds(
    lambda labels, env, resources, volumes, runtime: pod(
        labels=labels,
        annotations=labels,
        spec={
            "containers": [container(env=[{"name": name, "value": "h"} for name in env], resources=resources)],
            "initContainers": [container("first")],
            "volumes": [{"name": name, "emptyDir": {}} for name in volumes],
            **({"runtimeClassName": runtime} if runtime else {}),
        },
    ),
    st.dictionaries(words, words, max_size=2),
    st.lists(words, max_size=2, unique=True),
    st.fixed_dictionaries({}, optional={"requests": amounts, "limits": amounts}),
    st.lists(words, max_size=2, unique=True),
    st.none() | words,
)
scaled = {**resource_rules, "scale": amounts}


@given(pods, st.lists(declared({"patch": st.lists(operations, max_size=3)}, scaled), max_size=3))
def test_no_overrides_break_whose_pod_it_is_or_touch_homes(local: Object, overrides: list[JsonDict]) -> None:
    route, before = route_of(*overrides), raw(local)
    stated = copy.deepcopy(route.overrides)
    try:
        manifest = remote_pod(local, route)
    except Refused as refusal:
        manifest, reason = {}, refusal.reason
    assert raw(local) == before
    assert route.overrides == stated
    if not manifest:
        assert reason == names.OVERRIDE_FAILED
        return
    assert misfit(manifest) == ""
    assert (manifest["apiVersion"], manifest["kind"]) == ("v1", "Pod")
    mirror = from_dict(creatable(manifest))
    assert (mirror.meta.namespace, mirror.meta.name) == ("shop-home", "web")
    assert (route.owns(mirror), local_key(mirror)) == (True, local.key)
    assert mirror.meta.annotations[names.ORIGIN_UID] == local.uid
    assert mirror.meta.labels[names.ORIGIN] == "home"
    references(manifest["spec"])
    terms = manifest["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert all(term["matchExpressions"][-2:] == OFF_VIRTUAL for term in terms["nodeSelectorTerms"])
    # At rest: made again it is the same, and a mirror made of it has everything.
    assert remote_pod(local, route) == manifest
    assert patches(manifest, mirror) == []


def unordered(manifest: JsonDict) -> JsonDict:
    """`manifest` with variables by name: one rule may take out what the next puts in again, at the end."""
    spec = manifest["spec"]
    listed = {
        name: [{**each, "env": sorted(each.get("env") or (), key=lambda one: str(one["name"]))} for each in spec[name]]
        for name in ("initContainers", "containers")
    }
    return {**manifest, "spec": {**spec, **listed}}


@given(pods, st.lists(declared({}, resource_rules), max_size=3))
def test_what_overrides_declare_holds_when_they_are_applied_again(local: Object, overrides: list[JsonDict]) -> None:
    """Scaling and JSON patches are steps, not states; chains of images (a to b, b to c) are the user's own."""
    chosen = [("", override) for override in route_of(*overrides).overrides]
    once = overridden(remote_pod(local, ROUTE), chosen)
    assert unordered(overridden(once, chosen)) == unordered(once)
