"""Small builders of the objects tests speak of: a home Pod, its mirror, a route, a view. Defaults are the dull case."""

import copy
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from vnode import names
from vnode.kube.objects import JsonDict, Object, from_dict
from vnode.pods import changes
from vnode.pods.status import View
from vnode.pods.translate import remote_pod
from vnode.policy.route import Route

NOW = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC)
STAMP = "2026-05-01T12:00:00Z"
EARLIER = "2026-05-01T11:00:00Z"
ROUTE = Route("home", "0b1c", "edge", lambda namespace: f"{namespace}-home")
VIEW = View("10.0.0.1")
OPEN_VIEW = View("10.0.0.1", show_pod_ips=True)


def container(name: str = "main", image: str = "app:1", **fields: Any) -> JsonDict:
    """One container."""
    return {"name": name, "image": image, **fields}


def pod(
    name: str = "web",
    *,
    namespace: str = "shop",
    uid: str = "u1",
    version: int = 1,
    generation: int = 1,
    spec: Mapping[str, Any] | None = None,
    status: Mapping[str, Any] | None = None,
    **metadata: Any,
) -> Object:
    """A Pod bound to the virtual node. `spec` and `metadata` are laid over the defaults."""
    return from_dict(raw_pod(name, namespace, uid, version, generation, spec, status, **metadata))


def raw_pod(
    name: str = "web",
    namespace: str = "shop",
    uid: str = "u1",
    version: int = 1,
    generation: int = 1,
    spec: Mapping[str, Any] | None = None,
    status: Mapping[str, Any] | None = None,
    **metadata: Any,
) -> JsonDict:
    """The same as JSON."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": uid,
            "resourceVersion": str(version),
            "generation": generation,
            **metadata,
        },
        "spec": {"nodeName": "edge", "containers": [container()], **(spec or {})},
        "status": dict(status or {}),
    }


def mirror_of(
    local: Object, *, uid: str = "r1", version: int = 1, status: Mapping[str, Any] | None = None, **metadata: Any
) -> Object:
    """What the peer holds for `local`, as vnode makes it today, with the peer's own status."""
    raw = copy.deepcopy(changes.creatable(remote_pod(local, ROUTE)))
    raw["metadata"] |= {"uid": uid, "resourceVersion": str(version), **metadata}
    return from_dict({**raw, "status": dict(status or {})})


def labelled(local: Object, **labels: str) -> Object:
    """`local` with these labels instead of its own."""
    return pod(local.meta.name, uid=local.uid, spec=local.spec(), status=local.status(), labels=labels)


def condition(kind: str, status: str = "True", since: str = EARLIER, **fields: Any) -> JsonDict:
    """One Pod condition."""
    return {"type": kind, "status": status, "lastTransitionTime": since, **fields}


def running(restarts: int = 0, *, ready: bool = True, name: str = "main", **fields: Any) -> JsonDict:
    """The status of a Pod whose one container runs."""
    word = "True" if ready else "False"
    return {
        "phase": "Running",
        "startTime": EARLIER,
        "hostIP": "172.16.0.9",
        "hostIPs": [{"ip": "172.16.0.9"}],
        "podIP": "10.7.0.3",
        "podIPs": [{"ip": "10.7.0.3"}],
        "conditions": [
            condition("PodScheduled"),
            condition("Initialized"),
            condition("ContainersReady", word),
            condition("Ready", word),
        ],
        "containerStatuses": [container_status(name, restarts, ready=ready)],
        **fields,
    }


def container_status(name: str = "main", restarts: int = 0, *, ready: bool = True, **fields: Any) -> JsonDict:
    """The status of a container that runs."""
    return {
        "name": name,
        "image": "app:1",
        "imageID": "sha256:1",
        "ready": ready,
        "restartCount": restarts,
        "started": True,
        "state": {"running": {"startedAt": EARLIER}},
        **fields,
    }


def finished(phase: str = "Succeeded", code: int = 0, restarts: int = 0) -> JsonDict:
    """The status of a Pod whose one container has ended."""
    ended = {"terminated": {"exitCode": code, "reason": "Completed", "startedAt": EARLIER, "finishedAt": STAMP}}
    return {
        **running(restarts, ready=False),
        "phase": phase,
        "containerStatuses": [container_status(restarts=restarts, ready=False, state=ended, started=False)],
    }


def remote_condition(status: Mapping[str, Any]) -> JsonDict | None:
    """vnode's own condition in a status, if it is there."""
    return next((c for c in status.get("conditions") or () if c["type"] == names.REMOTE_CONDITION), None)
