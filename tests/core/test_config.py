"""config, schema, rules: the file's shape, and one line naming file, key and expectation for whatever is wrong."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from vnode import config, rules
from vnode.config import CapacitySpec, NodeSpec, PeerSpec, Settings, Taint
from vnode.errors import ConfigError
from vnode.kube import syntax
from vnode.policy.namespaces import LabelSelector, Requirement
from vnode.policy.overrides import ResourceRule

WHOLE = """
cluster: home
kubelet: {address: 127.0.0.1, clientCA: ca.pem}
peers:
- name: edge
  kubeconfig: edge.conf
  context: edge
  node:
    name: edge-node
    labels: {team: a}
    taints: [{key: gpu, effect: NoExecute}]
    region: eu
    zone: eu-1
    provider: gke
  namespaces:
    template: "{namespace}-at-{cluster}"
    map: {shop: store}
    selector: {matchLabels: {offload: "yes"}, matchExpressions: [{key: tier, operator: In, values: [web]}]}
  capacity: {limits: {cpu: 100, memory: 200Gi, pods: "1000", nvidia.com/gpu: 0.5}, nodeSelector: {pool: shared}}
  network: {podIPs: flat}
  overrides:
  - selector: {matchLabels: {app: web}}
    namespaces: [shop]
    images: [{prefix: docker.io/, to: mirror:5000/hub/}, {exact: nginx, to: nginx, tag: "1"}]
    containers:
    - {name: main, env: {A: b}, unsetEnv: [C], command: [run], args: []}
    - resources: {scale: {cpu: 0.5}, requests: {memory: 1Gi}, limits: {memory: 1Gi}, cap: {cpu: 2}}
    nodeSelector: {disk: ssd, pool: shared}
    tolerations: [{key: gpu, operator: Exists, tolerationSeconds: 30}]
    affinity: {podAffinity: {}}
    topologySpreadConstraints: [{topologyKey: rack, maxSkew: 1}]
    runtimeClasses: {kata: "", "*": gvisor}
    priorityClasses: {high: edge-high}
    imagePullSecrets: [edge]
    labels: {tier: "1"}
    annotations: {note: some text}
    volumes: [{name: data, hostPath: {path: /srv}}]
    patch: [{op: test, path: /spec/hostname, value: null}]
"""
LEAST = "peers: [{name: edge, kubeconfig: edge.conf}]"


def kubeconfig(server: str = "https://edge:6443", **more: object) -> str:
    return yaml.safe_dump(
        {
            "clusters": [{"name": "c", "cluster": {"server": server, **more}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": name, "context": {"cluster": "c", "user": "u"}} for name in ("edge", "two")],
            "current-context": "edge",
        }
    )


@pytest.fixture
def check(tmp_path: Path) -> Callable[[str], str]:
    """Load and validate a file beside good kubeconfigs; gives the complaint, shorn of the folder, or ""."""
    (tmp_path / "edge.conf").write_text(kubeconfig())
    (tmp_path / "far.conf").write_text(kubeconfig("https://far:6443"))
    (tmp_path / "edge-again.conf").write_text(kubeconfig("https://edge:6443/"))
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")

    def run(text: str) -> str:
        (tmp_path / "v.yaml").write_text(text)
        try:
            rules.validate(config.load(tmp_path / "v.yaml"))
        except ConfigError as e:
            return str(e).replace(f"{tmp_path}/", "")
        return ""

    return run


def test_the_whole_shape_is_read(check: Callable[[str], str], tmp_path: Path) -> None:
    assert check(WHOLE) == ""
    settings = config.load(tmp_path / "v.yaml")
    peer = settings.peers[0]
    assert settings.cluster == "home"
    assert settings.kubelet == config.KubeletSpec("127.0.0.1", str(tmp_path / "ca.pem"))
    assert (peer.kubeconfig, peer.context, peer.node_name) == (str(tmp_path / "edge.conf"), "edge", "edge-node")
    assert peer.node == NodeSpec("edge-node", {"team": "a"}, [Taint("gpu", "NoExecute")], "eu", "eu-1", "gke")
    assert peer.namespaces.selector == LabelSelector({"offload": "yes"}, [Requirement("tier", "In", ["web"])])
    limits = {"cpu": "100", "memory": "200Gi", "pods": "1000", "nvidia.com/gpu": "0.5"}
    assert peer.capacity == CapacitySpec(limits, {"pool": "shared"})
    assert peer.network.podIPs == "flat"
    (override,) = peer.overrides
    assert override.containers[1].resources == ResourceRule(
        {"cpu": "0.5"}, {"memory": "1Gi"}, {"memory": "1Gi"}, {"cpu": "2"}
    )
    assert override.tolerations == [{"key": "gpu", "operator": "Exists", "tolerationSeconds": 30}]
    assert override.patch == [{"op": "test", "path": "/spec/hostname", "value": None}]
    assert peer.namespace_map("home").remote("web") == "web-at-home"


def test_name_and_kubeconfig_are_enough(check: Callable[[str], str], tmp_path: Path) -> None:
    assert check(LEAST) == ""
    peer = config.load(tmp_path / "v.yaml").peers[0]
    assert peer == PeerSpec("edge", str(tmp_path / "edge.conf"))
    assert (peer.node_name, peer.node.taints, peer.namespaces.template) == ("edge", None, "{namespace}-{cluster}")


def test_no_taint_differs_from_the_default_taint_and_empty_values_are_absent(tmp_path: Path) -> None:
    (tmp_path / "v.yaml").write_text(
        "cluster:\npeers: [{name: a, kubeconfig: x, node: {taints: []}}, {name: b, kubeconfig: x, node: , capacity: }]"
    )
    first, second = config.load(tmp_path / "v.yaml").peers
    assert first.node.taints == []
    assert second == PeerSpec("b", str(tmp_path / "x"))


def test_merge_keys_may_override(check: Callable[[str], str]) -> None:
    text = "peers: [&a {name: edge, kubeconfig: edge.conf}, &b {<<: *a, name: far, kubeconfig: far.conf}]"
    assert check(text) == ""


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("peers: [", "v.yaml: expected YAML: line 1: "),
        ("- a", "v.yaml: document: expected mapping, got a list"),
        ("", "v.yaml: peers: expected at least one peer, here or by --peer NAME=KUBECONFIG"),
        ("cluster: a\ncluster: b", "v.yaml: expected YAML: line 2: key 'cluster' given twice"),
        ("peer: []", "v.yaml: peer: unknown key; known: cluster, kubelet, peers"),
        ("cluster: 7", "v.yaml: cluster: expected text, got 7 (needs quotes)"),
        ("peers: {}", "v.yaml: peers: expected list of mappings, got a mapping"),
        ("peers: [edge]", "v.yaml: peers[0]: expected mapping, got 'edge'"),
        ("peers: [{name: edge}]", "v.yaml: peers[0].kubeconfig: missing, expected text"),
        ("peers: [{kubeconfig: x}]", "v.yaml: peers[0].name: missing, expected text"),
        ("cluster: Home", "v.yaml: cluster: expected a DNS-1123 label"),
        ("kubelet: {address: localhost}", "v.yaml: kubelet.address: expected an IP address, got 'localhost'"),
        ("kubelet: {clientCA: no.pem}", "v.yaml: kubelet.clientCA: expected a readable text file, no.pem: No such"),
        (
            "kubelet: {clientCA: edge.conf}",
            "v.yaml: kubelet.clientCA: expected certificates in PEM, found none in edge.conf",
        ),
    ],
)
def test_a_wrong_file_is_told_in_one_line(check: Callable[[str], str], text: str, complaint: str) -> None:
    assert check(text).splitlines()[0].startswith(complaint)


@pytest.mark.parametrize(
    ("part", "complaint"),
    [
        ("node: {lables: {}}", "node.lables: unknown key; known: name, labels, taints, region, zone, provider"),
        ("node: {labels: {a: 1}}", "node.labels[a]: expected text, got 1 (needs quotes)"),
        ("node: {labels: {on: a}}", "node.labels[True]: expected a key in quotes"),
        ("node: {labels: {a b: c}}", "node.labels[a b]: expected a key [domain/]name"),
        ("node: {labels: {a: b c}}", "node.labels[a]: expected a label value"),
        (
            "node: {labels: {vnode.dev/peer: x}}",
            "node.labels[vnode.dev/peer]: expected no label that vnode itself sets",
        ),
        (
            "node: {labels: {kubernetes.io/hostname: x}}",
            "node.labels[kubernetes.io/hostname]: expected no label that vnode",
        ),
        (
            "node: {labels: {topology.kubernetes.io/zone: x}}",
            "node.labels[topology.kubernetes.io/zone]: expected no label that vnode itself sets; say node.zone",
        ),
        ("node: {name: Edge}", "node.name: expected a DNS-1123 subdomain"),
        (f"node: {{name: {'a' * 64}}}", "node.name: expected a label value"),
        ("node: {zone: a b}", "node.zone: expected a label value"),
        ("node: {taints: [{key: a}]}", "node.taints[0].effect: missing, expected one of NoExecute, NoSchedule, Prefer"),
        (
            "node: {taints: [{key: a, effect: No}]}",
            "node.taints[0].effect: expected one of NoExecute, NoSchedule, Prefer",
        ),
        ("node: {taints: [{key: a b, effect: NoExecute}]}", "node.taints[0].key: expected a key"),
        (
            "node: {taints: [{key: a, effect: NoExecute}, {key: a, effect: NoExecute, value: b}]}",
            "node.taints: expected one taint of key a and effect NoExecute",
        ),
        ("capacity: {limits: {cpu: much}}", "capacity.limits[cpu]: expected a quantity such as"),
        ("capacity: {limits: {cpu: -1}}", "capacity.limits[cpu]: expected a quantity of at least 0"),
        ("capacity: {limits: {pods: true}}", "capacity.limits[pods]: expected text, got True"),
        ("capacity: {limits: {cpus: 1}}", "capacity.limits[cpus]: expected a resource: cpu, memory,"),
        ("capacity: {nodeSelector: {a: b c}}", "capacity.nodeSelector[a]: expected a label value"),
        ("network: {podIPs: both}", "network.podIPs: expected one of flat, hidden, got 'both'"),
        ("namespaces: {template: store}", "namespaces.template: expected a DNS-1123 label with {namespace} once"),
        (
            "namespaces: {scope: mapped}",
            "namespaces.map: expected at least one namespace with scope mapped",
        ),
        ("namespaces: {map: {shop: Store}}", "namespaces.map[shop]: expected a DNS-1123 label"),
        (
            "namespaces: {map: {a: c, b: c}}",
            "namespaces.map: expected a remote namespace for each namespace, 'c' is given twice",
        ),
        (
            "namespaces: {template: '{namespace}', map: {shop: store}}",
            "namespaces.map[shop]: expected a name that the template gives to no other namespace, store has 'store'",
        ),
        (
            "namespaces: {selector: {matchExpressions: [{key: a, operator: Is}]}}",
            "namespaces.selector.matchExpressions[0].operator: expected one of DoesNotExist, Exists, In, NotIn",
        ),
        (
            "namespaces: {selector: {matchExpressions: [{key: a, operator: In}]}}",
            "namespaces.selector.matchExpressions[0].values: expected at least one value for In",
        ),
        (
            "namespaces: {selector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}",
            "namespaces.selector.matchExpressions[0].values: expected none for Exists",
        ),
        ("context: three", "context: expected one of edge, two in edge.conf, got 'three'"),
    ],
)
def test_a_wrong_peer_is_told_in_one_line(check: Callable[[str], str], part: str, complaint: str) -> None:
    (line,) = check(f"peers:\n- name: edge\n  kubeconfig: edge.conf\n  {part}\n").splitlines()
    assert line.startswith(f"v.yaml: peers[0].{complaint}")


@pytest.mark.parametrize(
    ("part", "complaint"),
    [
        ("", ": expected something to change"),
        ("namespaces: [shop]", ": expected something to change"),
        ("image: []", ".image: unknown key; known: selector, namespaces, images"),
        ("labels: {a: b}, namespaces: [Shop]", ".namespaces: expected a DNS-1123 label"),
        ("labels: {a: b}, selector: {matchLabels: {a b: c}}", ".selector.matchLabels[a b]: expected a key"),
        ("images: [{to: m/}]", ".images[0]: expected one of prefix and exact"),
        ("images: [{to: m/, prefix: a/, exact: b}]", ".images[0]: expected one of prefix and exact"),
        ("images: [{prefix: a}]", ".images[0]: expected to, tag, or both"),
        ("images: [{prefix: a/, to: m}]", ".images[0].to: expected / at its end like prefix"),
        ("images: [{prefix: a, tag: 'b:c'}]", ".images[0].tag: expected letters"),
        ("images: [{prefix: a b, to: m}]", ".images[0].prefix: expected no blanks"),
        ("containers: [{name: main}]", ".containers[0]: expected something to change"),
        ("containers: [{name: A, args: []}]", ".containers[0].name: expected a DNS-1123 label"),
        ("containers: [{env: {a=b: c}}]", ".containers[0].env: expected a variable's name, got 'a=b'"),
        ("containers: [{env: {a: 1}}]", ".containers[0].env[a]: expected text, got 1 (needs quotes)"),
        ("containers: [{env: {a: b}, unsetEnv: [a]}]", ".containers[0].unsetEnv: expected no variable that env sets"),
        ("containers: [{command: run}]", ".containers[0].command: expected list of text, got 'run'"),
        (
            "containers: [{resources: {cap: {cpu: much}}}]",
            ".containers[0].resources.cap[cpu]: expected a quantity of at least 0",
        ),
        (
            "containers: [{resources: {scale: {cpu: 0}}}]",
            ".containers[0].resources.scale[cpu]: expected a number above 0",
        ),
        ("containers: [{resources: {limits: {'c u': 1}}}]", ".containers[0].resources.limits[c u]: expected a key"),
        (
            "containers: [{resources: {scale: {hugepages-2Mi: 2}}}]",
            ".containers[0].resources.scale[hugepages-2Mi]: expected no huge pages",
        ),
        (
            "containers: [{resources: {requests: {cpu: 2}, limits: {cpu: 1}}}]",
            ".containers[0].resources.requests[cpu]: expected at most the limit, 1",
        ),
        ("nodeSelector: {a: b c}", ".nodeSelector[a]: expected a label value"),
        ("nodeSelector: {pool: own}", ".nodeSelector[pool]: expected 'shared' as capacity.nodeSelector has it"),
        ("tolerations: [{key: 5}]", ".tolerations[0].key: expected `str | null`, got `int`"),
        ("tolerations: [{since: 2026-01-01}]", ".tolerations[0][since]: expected text, a number"),
        ("affinity: {nodeAffinities: {}}", ".affinity.nodeAffinities: expected one of nodeAffinity, podAffinity"),
        ("affinity: {podAffinity: []}", ".affinity.podAffinity: expected `object`, got `array`"),
        (
            "topologySpreadConstraints: [{}]",
            ".topologySpreadConstraints[0]: object missing required field `topologyKey`",
        ),
        ("runtimeClasses: {a: B_}", ".runtimeClasses[a]: expected a DNS-1123 subdomain"),
        ("imagePullSecrets: [B_]", ".imagePullSecrets: expected a DNS-1123 subdomain"),
        ("labels: {a b: c}", ".labels[a b]: expected a key"),
        ("labels: {vnode.dev/origin: c}", ".labels[vnode.dev/origin]: expected a key that is not vnode's own"),
        ("annotations: {a b: c}", ".annotations[a b]: expected a key"),
        ("annotations: {vnode.dev/origin-uid: c}", ".annotations[vnode.dev/origin-uid]: expected a key that is not"),
        ("volumes: [{emptyDir: {}}]", ".volumes[0]: object missing required field `name`"),
        ("volumes: [{name: v}, {name: v}]", ".volumes: expected one volume named v"),
        ("volumes: [{name: v, hostPath: {path: .inf}}]", ".volumes[0][hostPath].path: expected text, a number"),
        ("volumes: [{name: v, hostPath: {1: a}}]", ".volumes[0][hostPath][1]: expected a key in quotes"),
        ("patch: [{op: set, path: /spec/a}]", ".patch[0]: expected an operation of RFC 6902: Unknown operation 'set'"),
        ("patch: [{path: /spec/a}]", ".patch[0]: expected an operation of RFC 6902: "),
        ("patch: [{op: remove, path: 5}]", ".patch[0]: expected an operation of RFC 6902: "),
        ("patch: [{op: remove, path: spec/a}]", ".patch[0]: expected an operation of RFC 6902: "),
        ("patch: [{op: move, from: 5, path: /spec/a}]", ".patch[0]: expected an operation of RFC 6902: "),
        ("patch: [{op: add, path: /spec/a}]", ".patch[0].value: missing, add needs it"),
        ("patch: [{op: copy, path: /spec/a}]", ".patch[0].from: missing, copy needs it"),
        ("patch: [{op: remove, path: /spec/a, vale: 1}]", ".patch[0].vale: unknown key"),
        ("patch: [{op: remove, path: /spec}]", ".patch[0]: expected a place below /spec, or a label"),
        ("patch: [{op: remove, path: /metadata/name}]", ".patch[0]: expected a place below /spec, or a label"),
        ("patch: [{op: remove, path: /metadata/labels}]", ".patch[0]: expected a place below /spec, or a label"),
        (
            "patch: [{op: move, from: /metadata/labels/vnode.dev~1node, path: /spec/a}]",
            ".patch[0]: expected a place below /spec, or a label or annotation that is not vnode's own, got",
        ),
    ],
)
def test_an_override_that_cannot_fit_is_told_in_one_line(
    check: Callable[[str], str], part: str, complaint: str
) -> None:
    more = f"capacity: {{nodeSelector: {{pool: shared}}}}, overrides: [{{{part}}}]"
    (line,) = check(f"peers: [{{name: edge, kubeconfig: edge.conf, {more}}}]").splitlines()
    assert line.startswith(f"v.yaml: peers[0].overrides[0]{complaint}")


def test_a_pair_may_say_what_the_template_would() -> None:
    peer = PeerSpec("edge", "", namespaces=config.NamespacesSpec("{namespace}", {"shop": "shop"}))
    assert peer.namespace_map("home").claimant("shop") is None


def test_every_problem_is_told_each_on_its_line(check: Callable[[str], str]) -> None:
    text = "cluster: Home\npeers: [{name: E, kubeconfig: no.conf, node: {zone: '?'}}]"
    assert [line.split(": ")[1] for line in check(text).splitlines()] == [
        "cluster",
        "peers[0].name",
        "peers[0].node.zone",
        "peers[0].kubeconfig",
    ]


@pytest.mark.parametrize(
    ("second", "complaint"),
    [
        ("{name: edge, kubeconfig: far.conf}", "name: expected another name, v.yaml: peers[0].name is edge too"),
        (
            "{name: far, kubeconfig: far.conf, node: {name: edge}}",
            "node.name: expected another name, peer edge has the node",
        ),
        ("{name: two, kubeconfig: edge.conf}", "namespaces: expected names that peer edge, which is the same cluster"),
        ("{name: two, kubeconfig: edge.conf, context: two}", "namespaces: expected names that peer edge"),
        ("{name: two, kubeconfig: edge-again.conf}", "namespaces: expected names that peer edge"),
    ],
)
def test_peers_in_each_others_way_are_refused(check: Callable[[str], str], second: str, complaint: str) -> None:
    (line,) = check(f"peers: [{{name: edge, kubeconfig: edge.conf}}, {second}]").splitlines()
    assert line.startswith(f"v.yaml: peers[1].{complaint}")


@pytest.mark.parametrize(
    "second",
    [
        "{name: far, kubeconfig: far.conf}",
        "{name: two, kubeconfig: edge.conf, namespaces: {template: '{namespace}-{cluster}-two'}}",
    ],
)
def test_two_clusters_or_two_templates_go_together(check: Callable[[str], str], second: str) -> None:
    assert check(f"cluster: home\npeers: [{{name: edge, kubeconfig: edge.conf}}, {second}]") == ""


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "kubeconfig: expected a readable text file"),
        ("{", "kubeconfig: expected YAML in"),
        ("just text", "kubeconfig: expected a kubeconfig"),
        ("contexts: []", "context: expected one of"),
        (kubeconfig().replace("current-context: edge\n", ""), "context: expected one of edge, two in"),
        (kubeconfig().replace("user: u", "user: v"), "kubeconfig: expected the user 'v' of context 'edge'"),
        (kubeconfig().replace("cluster: c", "cluster: d"), "kubeconfig: expected a cluster with a server"),
    ],
)
def test_an_unusable_kubeconfig_is_refused(tmp_path: Path, content: str | None, complaint: str) -> None:
    if content is not None:
        (tmp_path / "x.conf").write_text(content)
    settings = config.combine(None, config.from_flags([f"edge={tmp_path}/x.conf"]))
    with pytest.raises(ConfigError) as caught:
        rules.validate(settings)
    assert str(caught.value).startswith(f"--peer edge: {complaint}")


def test_flags_name_peers_relative_to_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert config.from_flags(["edge=sub/edge.conf#blue", "far=/far.conf"]) == (
        PeerSpec("edge", str(tmp_path / "sub/edge.conf"), "blue"),
        PeerSpec("far", "/far.conf"),
    )


@pytest.mark.parametrize("flag", ["edge", "edge=", "=edge.conf", "edge=#blue"])
def test_a_flag_of_another_shape_is_refused(flag: str) -> None:
    with pytest.raises(ConfigError, match=r"^--peer .*: expected NAME=KUBECONFIG\[#CONTEXT\]$"):
        config.from_flags([flag])


def test_a_flag_is_named_where_it_conflicts_with_the_file(check: Callable[[str], str], tmp_path: Path) -> None:
    assert check(LEAST) == ""
    file = config.load(tmp_path / "v.yaml")
    settings = config.combine(file, config.from_flags([f"edge={tmp_path}/far.conf"]))
    assert [peer.name for peer in settings.peers] == ["edge", "edge"]
    with pytest.raises(
        ConfigError, match=r"^--peer edge: name: expected another name, .*v.yaml: peers\[0\].name is edge too"
    ):
        rules.validate(settings)


def test_an_unreadable_file_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none.yaml: expected a readable file: No such file or directory$"):
        config.load(tmp_path / "none.yaml")


def test_the_derived_cluster_name_is_stable_and_a_label() -> None:
    name = config.default_cluster_name("0b0ff1a2-3c4d-4e5f-8a9b-000000000000")
    assert name == "c-0b0ff1a2"
    assert syntax.dns_label(name) == ""


def test_the_reference_names_every_key_with_its_meaning() -> None:
    table = {row.key: row for row in config.reference()}
    assert table["peers[].name"].default == "required"
    assert table["peers[].node.taints"].default == "none"
    assert table["peers[].capacity.limits"].type == "mapping of text to quantity"
    assert table["kubelet.clientCA"].default == '""'
    assert all(row.meaning and row.type for row in table.values())
    assert not {key for key in table if "place" in key}


def test_settings_survive_their_own_defaults() -> None:
    assert config.combine(None, ()) == Settings()


def test_where_peers_are_objects_none_is_said_elsewhere() -> None:
    rules.validate(Settings(objects_in="vnode-system"))
    with pytest.raises(ConfigError, match=r"peers: expected none, here or by --peer, with --peer-objects"):
        rules.validate(Settings(objects_in="vnode-system", peers=(PeerSpec("a", "b"),), peer_places=("",)))
    with pytest.raises(ConfigError, match=r"--namespace: expected a DNS-1123 label"):
        rules.validate(Settings(objects_in="A"))
