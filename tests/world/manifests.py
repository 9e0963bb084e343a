"""Small manifests for world tests, as users write them: only what the test is about is said."""

from collections.abc import Mapping
from typing import Any

from vnode import names
from vnode.devcluster.images import BUSYBOX

Json = dict[str, Any]

# What the world tests' vnode lets edge-b change, for Pods that carry one of these labels.
DIFFERS = {"vnode.test/overrides": "differs"}
MISFITS = {"vnode.test/overrides": "misfits"}
OVERRIDES: list[Json] = [
    {
        "selector": {"matchLabels": DIFFERS},
        "images": [{"prefix": "docker.io/", "to": "mirror.edge:5000/hub/"}],
        "containers": [{"env": {"PLACE": "edge"}, "resources": {"cap": {"cpu": "500m"}}}],
        "imagePullSecrets": ["edge-registry"],
        "patch": [{"op": "add", "path": "/spec/hostAliases", "value": [{"ip": "10.0.0.9", "hostnames": ["registry"]}]}],
    },
    {
        "selector": {"matchLabels": MISFITS},
        "patch": [{"op": "replace", "path": "/spec/hostname", "value": "edge"}],
    },
]


def placed(node: str, **spec: Any) -> Json:
    """A Pod spec of one container that asks for the virtual node of peer `node`; `spec` adds to it or wins."""
    return {
        "nodeSelector": {names.PEER: node},
        "tolerations": [{"key": names.PEER, "operator": "Exists", "effect": "NoSchedule"}],
        "containers": [{"name": "main", "image": "simulated:1"}],
        "terminationGracePeriodSeconds": 2,  # the longer it is, the more time namespaces take to go
        **spec,
    }


def pod(
    name: str,
    node: str,
    *,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    finalizers: list[str] | None = None,
    **spec: Any,
) -> Json:
    """A bare Pod for that virtual node."""
    metadata = {"name": name, "labels": labels or {}, "annotations": annotations or {}, "finalizers": finalizers or []}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": placed(node, **spec)}


def shell(script: str, **more: Any) -> Json:
    """A container that runs `script`, for a peer with a real node."""
    command = ["sh", "-c", script]
    return {"name": "main", "image": BUSYBOX, "imagePullPolicy": "IfNotPresent", "command": command, **more}


def bound(name: str, node: str, **more: Any) -> Json:
    """A bare Pod put onto the virtual node past the scheduler, which would not have it."""
    return pod(name, node, nodeName=node, **more)


def template(
    app: str,
    node: str,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    **spec: Any,
) -> Json:
    """A Pod template of the workload `app`."""
    metadata = {"labels": {"app": app, **(labels or {})}, "annotations": annotations or {}}
    return {"metadata": metadata, "spec": placed(node, **spec)}


def deployment(name: str, node: str, replicas: int, *, strategy: Json | None = None, **more: Any) -> Json:
    """A Deployment; `more` goes to `template`."""
    spec: Json = {
        "replicas": replicas,
        "selector": {"matchLabels": {"app": name}},
        "template": template(name, node, **more),
    }
    if strategy:
        spec["strategy"] = strategy
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def stateful_set(name: str, node: str, replicas: int, **more: Any) -> Json:
    """A StatefulSet without claims."""
    spec = {
        "replicas": replicas,
        "serviceName": name,
        "selector": {"matchLabels": {"app": name}},
        "template": template(name, node, **more),
    }
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": name}, "spec": spec}


def job(name: str, node: str, *, exit_code: str | None = None, spec: Json | None = None, **more: Any) -> Json:
    """A Job whose containers end at once with `exit_code` ("hold": never; None: 0); `spec` adds to the Job's."""
    labels = {"kwok.test/exit": exit_code} if exit_code else {}
    body = {"template": template(name, node, labels, restartPolicy="Never", **more), **(spec or {})}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": body}


def config_map(name: str, data: Mapping[str, str]) -> Json:
    """A ConfigMap."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": dict(data)}


def secret(name: str, data: Mapping[str, str]) -> Json:
    """A Secret, from plain text."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": dict(data)}
