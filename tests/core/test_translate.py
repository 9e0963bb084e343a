"""pods.translate: what goes, what changes, what is refused; and that everything else travels, untouched at home."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import ROUTE, container, pod, raw_pod
from tests.strategies import json_values
from vnode import names
from vnode.kube.objects import JsonDict, from_dict
from vnode.pods.fields import SPEC, VOLUMES
from vnode.pods.translate import SERVICE_ACCOUNT_PATH, references, remote_pod
from vnode.policy.route import Reference, Refused, Route, local_key

OFF_VIRTUAL = [
    {"key": "type", "operator": "NotIn", "values": ["virtual-kubelet"]},
    {"key": "vnode.dev/peer", "operator": "DoesNotExist"},
]
HOST = "kubernetes.io/hostname"


def spec_of(**spec: Any) -> JsonDict:
    """The translated spec of a Pod that has this one."""
    result: JsonDict = remote_pod(pod(spec=spec), ROUTE)["spec"]
    return result


def terms(**spec: Any) -> list[list[JsonDict]]:
    """The required node affinity terms, as rules, less those that keep off virtual nodes."""
    required = spec_of(**spec)["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    result = []
    for term in required["nodeSelectorTerms"]:
        assert set(term) == {"matchExpressions"}
        assert term["matchExpressions"][-2:] == OFF_VIRTUAL
        result.append(term["matchExpressions"][:-2])
    return result


def node_affinity(*alternatives: JsonDict, preferred: list[JsonDict] | None = None) -> JsonDict:
    required = {"nodeSelectorTerms": list(alternatives)}
    affinity: JsonDict = {"requiredDuringSchedulingIgnoredDuringExecution": required}
    if preferred:
        affinity["preferredDuringSchedulingIgnoredDuringExecution"] = preferred
    return {"nodeAffinity": affinity}


def rule(key: str, *values: str) -> JsonDict:
    return {"key": key, "operator": "In", "values": list(values)}


# --- metadata ---


def test_the_mirror_has_the_name_and_the_translated_namespace() -> None:
    manifest = remote_pod(pod(), ROUTE)
    assert (manifest["apiVersion"], manifest["kind"]) == ("v1", "Pod")
    assert (manifest["metadata"]["namespace"], manifest["metadata"]["name"]) == ("shop-home", "web")


def test_the_mirror_says_whose_it_is() -> None:
    manifest = remote_pod(pod(labels={"app": "web"}, spec={"serviceAccountName": "robot"}), ROUTE)
    assert manifest["metadata"]["labels"] == {
        "app": "web",
        "vnode.dev/origin": "home",
        "vnode.dev/origin-cluster-uid": "0b1c",
        "vnode.dev/node": "edge",
    }
    assert manifest["metadata"]["annotations"] == {
        "vnode.dev/origin-namespace": "shop",
        "vnode.dev/origin-uid": "u1",
        "vnode.dev/origin-service-account": "robot",
    }
    mirror = from_dict(manifest)
    assert ROUTE.owns(mirror)
    assert local_key(mirror) == pod().key


def test_another_node_cluster_or_namesake_does_not_own_the_mirror() -> None:
    mirror = from_dict(remote_pod(pod(), ROUTE))
    for other in (
        Route("home", "0b1c", "edge2", str),
        Route("home", "ffff", "edge", str),
    ):
        assert not other.owns(mirror)


def test_a_new_name_of_the_home_cluster_disowns_nothing() -> None:
    renamed = Route("house", "0b1c", "edge", str)
    assert renamed.owns(from_dict(remote_pod(pod(), ROUTE)))
    assert renamed.selector == ROUTE.selector


def test_a_user_cannot_pass_for_another_origin() -> None:
    forged = pod(labels={names.ORIGIN: "else"}, annotations={names.ORIGIN_UID: "x", names.ORIGIN_NAMESPACE: "y"})
    metadata = remote_pod(forged, ROUTE)["metadata"]
    assert metadata["labels"][names.ORIGIN] == "home"
    assert (metadata["annotations"][names.ORIGIN_UID], metadata["annotations"][names.ORIGIN_NAMESPACE]) == (
        "u1",
        "shop",
    )


def test_metadata_that_means_nothing_there_goes() -> None:
    local = pod(
        annotations={"kubectl.kubernetes.io/last-applied-configuration": "{}", "kept": "yes"},
        ownerReferences=[{"kind": "ReplicaSet", "name": "web", "uid": "x", "apiVersion": "apps/v1"}],
        finalizers=["batch.kubernetes.io/job-tracking"],
        generateName="web-",
    )
    metadata = remote_pod(local, ROUTE)["metadata"]
    assert set(metadata) == {"namespace", "name", "labels", "annotations"}
    assert metadata["annotations"]["kept"] == "yes"
    assert "kubectl.kubernetes.io/last-applied-configuration" not in metadata["annotations"]


# --- the spec by deny-list ---


@pytest.mark.parametrize("field", sorted(name for name, entry in SPEC.items() if entry.fate == "home-only"))
def test_a_field_of_home_alone_stays_there(field: str) -> None:
    assert field not in spec_of(**{field: "something"})


@pytest.mark.parametrize("field", sorted(name for name, entry in SPEC.items() if entry.fate == "carried"))
def test_a_carried_field_travels_as_it_is(field: str) -> None:
    value = [{"name": "it"}] if field in ("imagePullSecrets", "hostAliases") else {"of": ["some", 1]}
    assert spec_of(**{field: value})[field] == value


@given(st.dictionaries(st.text(min_size=1, max_size=8).map("x".__add__), json_values, max_size=3))
def test_unknown_fields_survive_at_every_level(unknown: JsonDict) -> None:
    unknown = {name: value for name, value in unknown.items() if value not in ([], {}, None)}
    probe = {"httpGet": {"port": 80, **unknown}, **unknown}
    volume = {"name": "v", "projected": {"sources": [{"configMap": {"name": "c", **unknown}}], **unknown}, **unknown}
    variable = {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name", **unknown}, **unknown}, **unknown}
    one = container(livenessProbe=probe, env=[variable], volumeMounts=[{"name": "v", "mountPath": "/v", **unknown}])
    manifest = remote_pod(pod(spec={"containers": [{**one, **unknown}], "volumes": [volume], **unknown}), ROUTE)
    spec = manifest["spec"]
    assert {name: spec.get(name) for name in unknown} == unknown
    assert spec["containers"] == [{**one, **unknown}]
    assert spec["volumes"] == [volume]


def test_an_unknown_volume_source_travels() -> None:
    volumes = [{"name": "v", "quantum": {"entangled": True}}, {"name": "e", "emptyDir": {}}]
    assert spec_of(volumes=volumes)["volumes"] == volumes


def test_the_default_account_without_a_token_stands_in() -> None:
    spec = spec_of(serviceAccountName="robot", serviceAccount="robot", automountServiceAccountToken=True)
    assert (spec["serviceAccountName"], spec["automountServiceAccountToken"]) == ("default", False)
    assert "serviceAccount" not in spec


# --- what is refused ---

SOURCES = sorted(name for name, entry in VOLUMES.items() if entry.fate == "refused" and "." not in name)
PARTS = sorted(
    name.removeprefix("projected.") for name, entry in VOLUMES.items() if entry.fate == "refused" and "." in name
)


@pytest.mark.parametrize("field", sorted(name for name, entry in SPEC.items() if entry.fate == "refused"))
def test_a_field_that_cannot_travel_is_refused_by_name(field: str) -> None:
    with pytest.raises(Refused) as refusal:
        spec_of(**{field: [{"name": "it"}]})
    assert str(refusal.value) == f"spec.{field}: {SPEC[field].note}"
    assert field not in spec_of(**{field: []})  # empty asks for nothing


@pytest.mark.parametrize("source", SOURCES)
def test_a_volume_source_that_cannot_travel_is_refused_by_its_place(source: str) -> None:
    with pytest.raises(Refused) as refusal:
        spec_of(volumes=[{"name": "e", "emptyDir": {}}, {"name": "v", source: {}}])
    assert str(refusal.value) == f"spec.volumes[1].{source}: {VOLUMES[source].note}"


@pytest.mark.parametrize("part", PARTS)
def test_a_projected_source_that_cannot_travel_is_refused_by_its_place(part: str) -> None:
    with pytest.raises(Refused) as refusal:
        spec_of(volumes=[{"name": "v", "projected": {"sources": [{"configMap": {"name": "c"}}, {part: {}}]}}])
    assert str(refusal.value) == f"spec.volumes[0].projected.{part}: {VOLUMES['projected.' + part].note}"


# --- the injected token ---

TOKEN: JsonDict = {
    "name": "kube-api-access-x7k2p",
    "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]},
}
MOUNT = {"name": "kube-api-access-x7k2p", "mountPath": SERVICE_ACCOUNT_PATH, "readOnly": True}
DATA: JsonDict = {"name": "data", "emptyDir": {}}
DATA_MOUNT = {"name": "data", "mountPath": "/data"}


@pytest.mark.parametrize("listed", ["containers", "initContainers", "ephemeralContainers"])
def test_the_injected_token_and_its_mounts_go_from_every_container(listed: str) -> None:
    one = container(volumeMounts=[DATA_MOUNT, MOUNT])
    spec = spec_of(volumes=[DATA, TOKEN], **{listed: [one, {**one, "name": "two"}]})
    assert spec["volumes"] == [DATA]
    assert [c["volumeMounts"] for c in spec[listed]] == [[DATA_MOUNT], [DATA_MOUNT]]


def test_a_pod_with_nothing_but_the_injected_token_has_no_volumes_left() -> None:
    spec = spec_of(volumes=[TOKEN], containers=[container(volumeMounts=[MOUNT])])
    assert "volumes" not in spec
    assert spec["containers"][0].get("volumeMounts") == []


def test_a_token_the_user_asked_for_is_refused_not_dropped() -> None:
    own = {**TOKEN, "name": "vault"}
    with pytest.raises(Refused, match="serviceAccountToken"):
        spec_of(volumes=[own], containers=[container(volumeMounts=[{"name": "vault", "mountPath": "/vault"}])])
    with pytest.raises(Refused, match="serviceAccountToken"):
        spec_of(volumes=[TOKEN], containers=[container(volumeMounts=[{**MOUNT, "mountPath": "/else"}])])


# --- downward API ---

PATHS = [
    ("metadata.namespace", "metadata.annotations['vnode.dev/origin-namespace']"),
    ("metadata.uid", "metadata.annotations['vnode.dev/origin-uid']"),
    ("spec.serviceAccountName", "metadata.annotations['vnode.dev/origin-service-account']"),
    ("spec.nodeName", "metadata.labels['vnode.dev/node']"),
    ("metadata.name", "metadata.name"),
    ("status.podIP", "status.podIP"),
    ("metadata.labels['app']", "metadata.labels['app']"),
]


@pytest.mark.parametrize(("path", "there"), PATHS)
@pytest.mark.parametrize("listed", ["containers", "initContainers", "ephemeralContainers"])
def test_an_environment_shows_homes_names(path: str, there: str, listed: str) -> None:
    one = container(env=[{"name": "A", "value": "a"}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": path}}}])
    variable = spec_of(**{listed: [one]})[listed][0]["env"][1]
    assert variable == {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": there}}}


@pytest.mark.parametrize(("path", "there"), PATHS)
def test_downward_volumes_show_homes_names(path: str, there: str) -> None:
    def items(field_path: str) -> JsonDict:
        limits = {"path": "cpu", "resourceFieldRef": {"containerName": "main", "resource": "limits.cpu"}}
        return {"items": [{"path": "it", "fieldRef": {"fieldPath": field_path}}, limits]}

    def volumes(field_path: str) -> list[JsonDict]:
        projected = {"sources": [{"downwardAPI": items(field_path)}]}
        return [{"name": "v", "downwardAPI": items(field_path)}, {"name": "p", "projected": projected}]

    assert spec_of(volumes=volumes(path))["volumes"] == volumes(there)


# --- placement ---


def test_a_node_selector_keeps_what_is_true_at_the_peer_and_takes_the_routes() -> None:
    route = Route("home", "0b1c", "edge", str, {"pool": "shared"})
    selector = {"kubernetes.io/os": "linux", "kubernetes.io/arch": "arm64", "vnode.dev/peer": "edge", "disk": "ssd"}
    there = remote_pod(pod(spec={"nodeSelector": selector}), route)["spec"]["nodeSelector"]
    assert there == {"kubernetes.io/os": "linux", "kubernetes.io/arch": "arm64", "pool": "shared"}


def test_a_pod_without_any_placement_keeps_off_the_peers_virtual_nodes() -> None:
    assert terms() == [[]]
    assert "nodeSelector" not in spec_of()


def test_every_alternative_keeps_off_the_peers_virtual_nodes() -> None:
    arm = rule("kubernetes.io/arch", "arm64")
    windows = rule("kubernetes.io/os", "windows")
    affinity = node_affinity({"matchExpressions": [arm, rule("zone", "a")]}, {"matchExpressions": [windows]})
    assert terms(affinity=affinity) == [[arm], [windows]]


@pytest.mark.parametrize(
    "free",
    [
        {"matchExpressions": [rule("vnode.dev/peer", "edge")]},
        {"matchFields": [rule("metadata.name", "edge")]},
        {"matchExpressions": []},
        {},
    ],
)
def test_one_alternative_that_asks_nothing_of_the_peer_frees_them_all(free: JsonDict) -> None:
    arm = {"matchExpressions": [rule("kubernetes.io/arch", "arm64")]}
    assert terms(affinity=node_affinity(arm, free)) == [[]]


def test_preferences_that_mean_nothing_there_go_and_the_others_keep_their_weight() -> None:
    arm = rule("kubernetes.io/arch", "arm64")
    preferred = [
        {"weight": 7, "preference": {"matchExpressions": [arm, rule("zone", "a")]}},
        {"weight": 9, "preference": {"matchExpressions": [rule("zone", "a")]}},
    ]
    there = spec_of(affinity=node_affinity({}, preferred=preferred))["affinity"]["nodeAffinity"]
    assert there["preferredDuringSchedulingIgnoredDuringExecution"] == [
        {"weight": 7, "preference": {"matchExpressions": [arm]}}
    ]


def near(topology: str = HOST, **fields: Any) -> JsonDict:
    return {"topologyKey": topology, "labelSelector": {"matchLabels": {"app": "web"}}, **fields}


REQUIRED, PREFERRED = (
    "requiredDuringSchedulingIgnoredDuringExecution",
    "preferredDuringSchedulingIgnoredDuringExecution",
)


def test_pod_affinity_becomes_a_wish() -> None:
    wish = {"weight": 5, "podAffinityTerm": near("zone")}
    there = spec_of(affinity={"podAffinity": {REQUIRED: [near()], PREFERRED: [wish]}})["affinity"]["podAffinity"]
    assert there == {PREFERRED: [wish, {"weight": 100, "podAffinityTerm": near()}]}


def test_pod_anti_affinity_stays_a_must() -> None:
    affinity = {"podAntiAffinity": {REQUIRED: [near()], PREFERRED: [{"weight": 5, "podAffinityTerm": near("zone")}]}}
    assert spec_of(affinity=affinity)["affinity"]["podAntiAffinity"] == affinity["podAntiAffinity"]


@pytest.mark.parametrize("kind", ["podAffinity", "podAntiAffinity"])
def test_affinity_by_peer_has_been_decided_at_home(kind: str) -> None:
    ours = near("vnode.dev/peer")
    affinity = {kind: {REQUIRED: [ours], PREFERRED: [{"weight": 5, "podAffinityTerm": ours}]}}
    assert set(spec_of(affinity=affinity)["affinity"]) == {"nodeAffinity"}


def test_namespaces_in_pod_affinity_are_translated() -> None:
    affinity = {"podAntiAffinity": {REQUIRED: [near(namespaces=["shop", "pay"]), near(namespaceSelector={})]}}
    assert spec_of(affinity=affinity)["affinity"]["podAntiAffinity"][REQUIRED] == [
        near(namespaces=["shop-home", "pay-home"]),
        near(namespaceSelector={}),
    ]


HASHED = {"matchLabels": {"app": "web"}, "matchExpressions": [rule("pod-template-hash", "77f")]}


def test_label_keys_that_home_has_merged_into_the_selector_go() -> None:
    # The peer would merge them once more and then refuse the result.
    term = {"topologyKey": HOST, "labelSelector": HASHED, "matchLabelKeys": ["pod-template-hash"]}
    spread = {**term, "maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway", "matchLabelKeys": ["pod-template-hash", "b"]}
    spec = spec_of(affinity={"podAntiAffinity": {REQUIRED: [term]}}, topologySpreadConstraints=[spread])
    assert spec["affinity"]["podAntiAffinity"][REQUIRED] == [{"topologyKey": HOST, "labelSelector": HASHED}]
    assert spec["topologySpreadConstraints"] == [{**spread, "matchLabelKeys": ["b"]}]


def test_label_keys_that_home_has_not_merged_travel() -> None:
    term = near(matchLabelKeys=["pod-template-hash"], mismatchLabelKeys=["tenant"])
    assert spec_of(affinity={"podAntiAffinity": {REQUIRED: [term]}})["affinity"]["podAntiAffinity"][REQUIRED] == [term]


def test_the_toleration_of_our_taint_goes_and_others_travel() -> None:
    ours = {"key": "vnode.dev/peer", "operator": "Exists", "effect": "NoSchedule"}
    other = {"key": "gpu", "operator": "Exists"}
    assert spec_of(tolerations=[ours, other])["tolerations"] == [other]
    assert "tolerations" not in spec_of(tolerations=[ours])


def test_spreading_inside_the_peer_is_a_wish_and_by_peer_it_is_done() -> None:
    spread = {"maxSkew": 1, "topologyKey": HOST, "whenUnsatisfiable": "DoNotSchedule", "minDomains": 3, "new": 1}
    constraints = [spread, {**spread, "topologyKey": "vnode.dev/peer"}]
    assert spec_of(topologySpreadConstraints=constraints)["topologySpreadConstraints"] == [
        {"maxSkew": 1, "topologyKey": HOST, "whenUnsatisfiable": "ScheduleAnyway", "new": 1}
    ]


# --- the whole ---

rich_specs: st.SearchStrategy[JsonDict] = st.fixed_dictionaries(
    {
        "containers": st.lists(
            st.builds(
                lambda name, mounts: container(
                    name,
                    volumeMounts=mounts,
                    env=[{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
                ),
                st.sampled_from(["main", "side"]),
                st.just([MOUNT, DATA_MOUNT]),
            ),
            min_size=1,
            max_size=2,
            unique_by=lambda entry: str(entry["name"]),
        )
    },
    optional={
        "nodeSelector": st.dictionaries(st.sampled_from(["kubernetes.io/os", "zone"]), st.just("x"), max_size=2),
        "tolerations": st.lists(
            st.sampled_from([{"operator": "Exists"}, {"key": "vnode.dev/peer"}, {"key": "gpu"}]), max_size=3
        ),
        "affinity": st.fixed_dictionaries(
            {},
            optional={
                "nodeAffinity": st.lists(
                    st.sampled_from(
                        [{}, {"matchExpressions": [rule("kubernetes.io/arch", "x")]}, {"matchFields": [rule("a", "b")]}]
                    ),
                    min_size=1,
                    max_size=3,
                ).map(lambda found: node_affinity(*found)["nodeAffinity"]),
                "podAffinity": st.sampled_from([{REQUIRED: [near()]}, {REQUIRED: [near("vnode.dev/peer")]}, {}]),
                "podAntiAffinity": st.sampled_from([{REQUIRED: [near(namespaces=["shop"])]}, {}]),
            },
        ),
        "topologySpreadConstraints": st.lists(
            st.sampled_from([near(whenUnsatisfiable="DoNotSchedule", minDomains=2), near("vnode.dev/x")]), max_size=2
        ),
        "volumes": st.lists(st.sampled_from([DATA, TOKEN]), max_size=2, unique_by=lambda volume: str(volume["name"])),
        "unheardOf": json_values.filter(lambda value: value not in ([], {}, None)),
    },
)
STAY = Route("home", "0b1c", "edge", str)


@given(rich_specs)
def test_a_second_pass_changes_nothing(spec: JsonDict) -> None:
    once = remote_pod(pod(spec=spec), STAY)
    again = remote_pod(from_dict({**once, "metadata": {**once["metadata"], "uid": "u1"}}), STAY)
    assert again["spec"] == once["spec"]
    assert again["metadata"]["labels"] == once["metadata"]["labels"]


@given(rich_specs)
def test_the_home_pod_is_not_touched(spec: JsonDict) -> None:
    raw = raw_pod(spec=spec)
    local, before = from_dict(raw), copy.deepcopy(raw)
    remote_pod(local, ROUTE)
    assert (raw, local.spec()) == (before, before["spec"])


@given(rich_specs)
def test_no_mirror_ever_lands_on_a_virtual_node(spec: JsonDict) -> None:
    there = remote_pod(pod(spec=spec), ROUTE)["spec"]
    alternatives = there["affinity"]["nodeAffinity"][REQUIRED]["nodeSelectorTerms"]
    assert alternatives
    assert all(term["matchExpressions"][-2:] == OFF_VIRTUAL for term in alternatives)
    assert "nodeName" not in there


# --- references ---


def test_references_are_found_wherever_a_pod_names_them() -> None:
    def key_of(kind: str, name: str, **fields: Any) -> JsonDict:
        return {"name": "V", "valueFrom": {kind: {"name": name, "key": "k", **fields}}}

    spec = {
        "volumes": [
            {"name": "a", "configMap": {"name": "cm-volume"}},
            {"name": "b", "secret": {"secretName": "secret-volume", "optional": True}},
            {
                "name": "c",
                "projected": {"sources": [{"configMap": {"name": "cm-part"}}, {"secret": {"name": "s-part"}}]},
            },
            {"name": "d", "csi": {"driver": "x", "nodePublishSecretRef": {"name": "s-csi"}}},
            {"name": "e", "flexVolume": {"driver": "x", "secretRef": {"name": "s-flex"}}},
            {"name": "f", "emptyDir": {}},
        ],
        "containers": [
            container(env=[key_of("configMapKeyRef", "cm-env", optional=True), {"name": "X", "value": "y"}])
        ],
        "initContainers": [container("i", env=[key_of("secretKeyRef", "s-env")])],
        "ephemeralContainers": [
            container("e", envFrom=[{"configMapRef": {"name": "cm-from"}}, {"secretRef": {"name": "s"}}])
        ],
        "imagePullSecrets": [{"name": "pull"}, {}],
    }
    assert references(spec) == {
        Reference("ConfigMap", "cm-volume"),
        Reference("Secret", "secret-volume", optional=True),
        Reference("ConfigMap", "cm-part"),
        Reference("Secret", "s-part"),
        Reference("Secret", "s-csi"),
        Reference("Secret", "s-flex"),
        Reference("ConfigMap", "cm-env", optional=True),
        Reference("Secret", "s-env"),
        Reference("ConfigMap", "cm-from"),
        Reference("Secret", "s"),
        Reference("Secret", "pull", optional=True),
    }


@pytest.mark.parametrize("order", [(True, False), (False, True)])
def test_what_is_named_both_ways_is_required(order: tuple[bool, bool]) -> None:
    volumes = [{"name": str(n), "configMap": {"name": "c", "optional": word}} for n, word in enumerate(order)]
    assert references({"volumes": volumes}) == {Reference("ConfigMap", "c", optional=False)}


def test_a_pod_that_names_nothing_refers_to_nothing() -> None:
    assert references(spec_of(volumes=[TOKEN], containers=[container(volumeMounts=[MOUNT])])) == set()
