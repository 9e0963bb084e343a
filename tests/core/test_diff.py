"""vnode diff of manifests: offline, for every kind that makes Pods, with one line for whatever is wrong."""

import io
from pathlib import Path
from typing import Any

import pytest
import yaml

from vnode.config import Settings, parse
from vnode.diff import show_file
from vnode.errors import ConfigError, VnodeError
from vnode.kube.objects import JsonDict
from vnode.rules import validate

CONFIG = """
cluster: home
kubelet: {clientCA: absent.pem}
peers:
- name: edge
  kubeconfig: absent.conf
  overrides: [{images: [{prefix: app, to: mirror/app}]}]
- name: far
  kubeconfig: absent.conf
  node: {name: far-node}
"""
TEMPLATE: JsonDict = {
    "metadata": {"labels": {"app": "web"}, "annotations": {"note": "a"}},
    "spec": {"containers": [{"name": "main", "image": "app:1"}]},
}


def manifest(kind: str, spec: JsonDict, **metadata: Any) -> JsonDict:
    return {"kind": kind, "metadata": {"name": "web", **metadata}, "spec": spec}


@pytest.fixture(scope="module")
def settings() -> Settings:
    """Two peers, whose kubeconfigs are not on this machine."""
    settings = parse(CONFIG, "v.yaml", Path())
    validate(settings, files=False)
    return settings


@pytest.fixture
def shown(settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """The lines printed for manifests, or the text of a file, at a peer."""

    def run(*documents: Any, text: str = "", peer: str = "edge", namespace: str = "default") -> list[str]:
        file = tmp_path / "m.yaml"
        file.write_text(text or yaml.safe_dump_all(documents))
        try:
            show_file(settings, str(file), namespace, peer)
        finally:
            lines = capsys.readouterr().out.splitlines()
        return lines

    return run


@pytest.mark.parametrize(
    "document",
    [
        {**manifest("Pod", TEMPLATE["spec"]), "metadata": {"name": "web", **TEMPLATE["metadata"]}},
        manifest("Deployment", {"template": TEMPLATE}, labels={"of": "the workload"}),
        manifest("ReplicaSet", {"template": TEMPLATE}),
        manifest("StatefulSet", {"template": TEMPLATE}),
        manifest("DaemonSet", {"template": TEMPLATE}),
        manifest("Job", {"template": TEMPLATE}),
        manifest("CronJob", {"jobTemplate": {"spec": {"template": TEMPLATE}}}),
        {"kind": "List", "items": [manifest("Service", {}), manifest("Job", {"template": TEMPLATE})]},
    ],
    ids=lambda document: str(document["kind"]),
)
def test_what_makes_a_pod_shows_what_the_peer_would_get(shown: Any, document: JsonDict) -> None:
    lines = shown(document, manifest("Service", {}))
    assert lines[:2] == ["--- home: default/web", "+++ edge: default-home/web"]
    changed = [line for line in lines[2:] if line[0] in "+-"]
    assert "-  - image: app:1" in changed
    assert "+  - image: mirror/app:1" in changed
    assert {"-  namespace: default", "+  namespace: default-home"} <= set(changed)
    assert {"+    vnode.dev/origin: home", "+    vnode.dev/origin-cluster-uid: <uid>"} <= set(changed)
    assert {"     app: web", "     note: a"} <= set(lines)


def test_every_pod_of_a_file_is_shown_in_its_namespace_at_the_peer_asked_for(shown: Any) -> None:
    own = manifest("Job", {"template": TEMPLATE}, namespace="shop")
    unnamed = {"kind": "Pod", "metadata": {"generateName": "run-"}, "spec": TEMPLATE["spec"]}
    lines = shown(own, unnamed, peer="far", namespace="other")
    assert [line for line in lines if line.startswith(("---", "+++"))] == [
        "--- home: shop/web",
        "+++ far: shop-home/web",
        "--- home: other/run-",
        "+++ far: other-home/run-",
    ]
    assert "   - image: app:1" in lines  # far has no overrides


def test_what_cannot_travel_is_told_after_all_others(shown: Any, capsys: pytest.CaptureFixture[str]) -> None:
    claim = {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}], **TEMPLATE["spec"]}
    with pytest.raises(VnodeError) as error:
        shown(manifest("Pod", claim), manifest("Job", {"template": TEMPLATE}, namespace="kube-system"))
    first, second = str(error.value).splitlines()
    assert first.startswith(
        "Pod default/web cannot run at edge: UnsupportedField: spec.volumes[0].persistentVolumeClaim"
    )
    assert second.startswith("Pod kube-system/web cannot run at edge: NamespaceNotOffloaded: namespace kube-system")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "m.yaml: expected a manifest of one of Pod, Deployment,"),
        ("{kind: Service}", "m.yaml: expected a manifest of one of Pod, Deployment,"),
        ("just text", "m.yaml: expected a manifest of one of"),
        ("{", "m.yaml: expected YAML: line 1"),
        ("{kind: Pod}", "m.yaml: Pod: expected a manifest with a Pod's spec"),
        ("{kind: Pod, spec: }", "m.yaml: Pod <name>: spec: expected `object`, got `null`"),
        ("{kind: Job, spec: {template: 5}}", "m.yaml: Job: expected a manifest with a Pod's spec"),
        ("{kind: Job, spec: }", "m.yaml: Job: expected a manifest with a Pod's spec"),
        ("{kind: Pod, metadata: 5, spec: {}}", "m.yaml: Pod: expected a manifest with a Pod's spec"),
        (
            "{kind: Pod, metadata: {name: a}, spec: {containers: [{name: a}]}}",
            "m.yaml: Pod a: spec.containers[0]: object missing required field `image`",
        ),
        (
            "{kind: Pod, metadata: {name: a}, spec: {containers: []}}",
            "m.yaml: Pod a: spec.containers: expected `array`",
        ),
        (
            "{kind: Pod, metadata: {name: a, labels: {b: 1}}, spec: {containers: [{name: a, image: b}]}}",
            "m.yaml: Pod a: metadata.labels[...]: expected `str`, got `int`",
        ),
        (
            "{kind: Pod, metadata: {name: a, annotations: {b: 2026-01-01}}, spec: {containers: [{name: a, image: b}]}}",
            "m.yaml: Pod a: metadata.annotations[...]: expected `str`",
        ),
        (
            "{kind: Pod, spec: {containers: [{name: a, image: b}], volumes: [{secret: {secretName: b}}]}}",
            "m.yaml: Pod <name>: spec.volumes[0]: object missing required field `name`",
        ),
    ],
)
def test_a_file_without_a_sound_pod_is_told_in_one_line(shown: Any, tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        shown(text=text or "\n")
    (line,) = str(error.value).replace(f"{tmp_path}/", "").splitlines()
    assert line.startswith(told)


@pytest.mark.parametrize("peer", ["", "none", "far-node"])
def test_the_peer_must_be_clear(shown: Any, peer: str) -> None:
    with pytest.raises(ConfigError, match=r"^--peer: expected one of edge, far$"):
        shown(manifest("Pod", TEMPLATE["spec"]), peer=peer)


def test_the_only_peer_need_not_be_named_and_a_home_without_a_name_is_told_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(yaml.safe_dump(manifest("Pod", TEMPLATE["spec"]))))
    show_file(parse("peers: [{name: edge, kubeconfig: x}]", "v.yaml", tmp_path), "-", "shop", "")
    assert capsys.readouterr().out.splitlines()[1] == "+++ edge: shop-<cluster>/web"


def test_an_absent_file_is_told(settings: Settings) -> None:
    with pytest.raises(ConfigError, match=r"^/none\.yaml: expected a readable file: No such file or directory$"):
        show_file(settings, "/none.yaml", "default", "edge")


@pytest.mark.parametrize(("forced", "colours"), [(True, True), (False, False)])
def test_colour_is_for_terminals(shown: Any, monkeypatch: pytest.MonkeyPatch, forced: bool, colours: bool) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    if forced:
        monkeypatch.setenv("FORCE_COLOR", "1")  # as rich has it: as if this were a terminal
    else:
        monkeypatch.delenv("FORCE_COLOR", raising=False)
    lines = shown(manifest("Pod", TEMPLATE["spec"]))
    assert any(line.startswith("\x1b[32m+") for line in lines) is colours
    assert any(line.startswith("\x1b[31m-") for line in lines) is colours
