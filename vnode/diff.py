"""`vnode diff`: a Pod as home has it beside what a peer would get, as a unified diff.

Of a Pod at home only home is asked; manifests in a file are compared offline, and no peer is ever reached: it is what
`pods.translate` makes, not what peers' own admission then makes of it. Called by `cli`.
"""

import difflib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec
import yaml
from rich.console import Console
from rich.text import Text

from vnode import names
from vnode.config import PeerSpec, Settings, default_cluster_name
from vnode.errors import ConfigError, VnodeError
from vnode.kube.client import NAMESPACES, PODS, Client
from vnode.kube.credentials import Credentials
from vnode.kube.objects import Json, JsonDict, Key, Object, from_dict, parse_object, without_empty
from vnode.kube.podspec import misfit
from vnode.pods.translate import LAST_APPLIED, remote_pod
from vnode.policy.namespaces import NamespaceMap
from vnode.policy.route import Refused
from vnode.schema import yaml_problem
from vnode.telemetry.metrics import Metrics

# Where each kind has its Pod's template.
_TEMPLATES: Final = {
    "Pod": (),
    "Deployment": ("spec", "template"),
    "ReplicaSet": ("spec", "template"),
    "ReplicationController": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}
_UNKNOWN_UID: Final = "<uid>"  # offline nobody knows it
_STYLES: Final = {"---": "bold", "+++": "bold", "@@": "cyan", "-": "red", "+": "green"}


async def show_pod(settings: Settings, home: Credentials, key: Key, peer: str) -> None:
    """Print the diff of a Pod at home for `peer`; "": the one whose Node it is bound to.

    Raises `ConfigError` when it is not clear which peer, and `VnodeError` when home does not answer or the Pod cannot
    travel, saying why.
    """
    client = Client(home, "home", Metrics())
    try:
        pod = parse_object(await client.get(PODS, key))
        namespace = parse_object(await client.get(NAMESPACES, Key("", key.namespace)))
        uid = parse_object(await client.get(NAMESPACES, Key("", "kube-system"))).uid
    finally:
        await client.close()
    spec = _chosen(settings, peer, str(pod.spec().get("nodeName", "")))
    cluster = settings.cluster or default_cluster_name(uid)
    offloads = spec.namespace_map(cluster).offloads(key.namespace, namespace.meta.labels)
    _show(spec, cluster, uid, [(pod, offloads)])


def show_file(settings: Settings, file: str, namespace: str, peer: str) -> None:
    """Print the diff of each Pod and each Pod template in the manifests of `file` ("-": standard input).

    Home's own identity is not known offline: its UIDs, and its name unless configured, show as `<...>`. Raises
    `ConfigError` for a file without one, and `VnodeError` when one of them cannot travel, saying why.
    """
    spec = _chosen(settings, peer, "")
    cluster = settings.cluster or "<cluster>"
    # Labels of namespaces are not known either: only what needs none is judged.
    spaces: NamespaceMap = replace(spec.namespace_map(cluster), selector=None)
    pods = [from_dict(pod) for pod in _pods(file, namespace)]
    _show(spec, cluster, _UNKNOWN_UID, [(pod, spaces.offloads(pod.meta.namespace, {})) for pod in pods])


def _chosen(settings: Settings, name: str, node: str) -> PeerSpec:
    if name:
        found = [spec for spec in settings.peers if spec.name == name]
    else:
        found = [spec for spec in settings.peers if spec.node_name == node] or list(settings.peers)
    if len(found) != 1:
        raise ConfigError(f"--peer: expected one of {', '.join(spec.name for spec in settings.peers)}")
    return found[0]


def _pods(file: str, namespace: str) -> Iterator[JsonDict]:
    """The Pods that the manifests in `file` describe or would make, by the names of what makes them."""
    found = False
    for document in _documents(file):
        kind, metadata = document.get("kind"), document.get("metadata") or {}
        if not isinstance(kind, str) or kind not in _TEMPLATES:
            continue
        found = True
        template = document
        try:
            for step in _TEMPLATES[kind]:
                template = template[step]
            own = template.get("metadata") or {}
            name = metadata.get("name") or metadata.get("generateName") or "<name>"
            place = {"namespace": metadata.get("namespace") or namespace, "name": name, "uid": _UNKNOWN_UID}
            texts = {field: own.get(field) or {} for field in ("labels", "annotations")}
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {**place, **texts}, "spec": template["spec"]}
        except (KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{file}: {kind}: expected a manifest with a Pod's spec") from error
        if problem := misfit(pod):
            raise ConfigError(f"{file}: {kind} {name}: {problem}")
        yield pod
    if not found:
        raise ConfigError(f"{file}: expected a manifest of one of {', '.join(_TEMPLATES)}")


def _documents(file: str) -> Iterator[Json]:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
        for document in yaml.safe_load_all(text):
            listed = document.get("items") if isinstance(document, dict) and document.get("kind") == "List" else None
            items = listed if isinstance(listed, list) and listed else [document]
            yield from (item for item in items if isinstance(item, dict))
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"{file}: expected a readable file: {getattr(e, 'strerror', None) or e}") from e
    except yaml.YAMLError as e:
        raise ConfigError(f"{file}: expected YAML: {yaml_problem(e)}") from e
    except (ValueError, RecursionError) as e:  # a date that is none, brackets without end
        raise ConfigError(f"{file}: expected YAML: {type(e).__name__}") from e


def _show(spec: PeerSpec, cluster: str, uid: str, pods: Sequence[tuple[Object, bool]]) -> None:
    """Print each diff; after them, raise what cannot travel. Each Pod comes with whether its namespace may offload."""
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    route, refusals = spec.route(cluster, uid), []
    for pod, offloads in pods:
        try:
            if not offloads:
                message = f"namespace {pod.meta.namespace} is not selected for offloading"
                raise Refused(names.NAMESPACE_NOT_OFFLOADED, message)
            remote = remote_pod(pod, route)
        except Refused as refused:
            refusals.append(f"Pod {pod.key} cannot run at {spec.name}: {refused.reason}: {refused}")
            continue
        place = Key(remote["metadata"]["namespace"], remote["metadata"]["name"])
        lines = difflib.unified_diff(
            _lines(_as_written(pod)), _lines(remote), f"home: {pod.key}", f"{spec.name}: {place}", lineterm=""
        )
        for line in lines:
            style = next((style for start, style in _STYLES.items() if line.startswith(start)), "")
            console.print(Text(line, style))
    if refusals:
        raise VnodeError("\n".join(refusals))


def _as_written(pod: Object) -> JsonDict:
    """`pod` less what its apiserver and kubectl keep for themselves."""
    annotations = {key: value for key, value in pod.meta.annotations.items() if key != LAST_APPLIED}
    metadata = {"namespace": pod.meta.namespace, "name": pod.meta.name, "labels": pod.meta.labels}
    metadata = without_empty({**metadata, "annotations": annotations})
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod.spec()}


def _lines(manifest: Json) -> list[str]:
    # Without the detour YAML would show what is shared within the object as anchors and aliases.
    plain = msgspec.json.decode(msgspec.json.encode(manifest))
    return yaml.safe_dump(plain, default_flow_style=False, allow_unicode=True, width=10_000).splitlines()
