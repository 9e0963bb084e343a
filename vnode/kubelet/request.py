"""What a request to a kubelet's port asks for: its path taken apart, its refusals, and where its Pod is.

Paths are matched as they stand on the wire and never normalised: what holds an empty segment, `.`, `..` or a
percent sign names nothing here, so no spelling leads to another Pod than the one that was authorised.
Used by `server` (routes), `auth` (attributes), `logs`, `streams` and `reports`.
"""

import logging
import re
from collections.abc import Iterable
from typing import Final, NamedTuple, Protocol

from vnode.errors import VnodeError
from vnode.kube.client import Client
from vnode.kube.objects import Key, Object
from vnode.kubelet.health import CHECKS

log = logging.getLogger(__name__)

_PATH: Final = re.compile(r"/|(?:/[A-Za-z0-9._-]+)+/?")
_DISABLED: Final = {  # k8s.io/kubernetes v1.37 pkg/kubelet/server/server.go, getHandlerForDisabledEndpoint
    "/run": "Debug endpoints are disabled.\n",
    "/logs": "logs endpoint is disabled.\n",
    "/debug/pprof": "profiling endpoint is disabled.\n",
    "/debug/flags/v": "flags endpoint is disabled.\n",
}
# What a kubelet tells of itself and all its Pods, as `reports` answers it. Those of go-restful may end with a slash and
# look at the method, the others answer to any.
_RESTFUL_REPORTS: Final = {"pods": ("GET",), "runningpods": ("GET",), "stats/summary": ("GET", "POST")}
REPORTS: Final = frozenset(
    {
        *_RESTFUL_REPORTS,
        "healthz",
        *(f"healthz/{check}" for check in CHECKS),
        "metrics",
        "metrics/resource",
        "metrics/probes",
        "metrics/cadvisor",
        "metrics/slis",
        "configz",
    }
)
_REPORT_PATHS: Final = {f"/{route}": route for route in REPORTS} | {f"/{route}/": route for route in _RESTFUL_REPORTS}

# Segments after the route's own: with a UID there is one more, before the container.
_SHAPES: Final[dict[str, dict[int, tuple[str, ...]]]] = {
    "containerLogs": {3: ("namespace", "pod", "container")},
    "exec": {3: ("namespace", "pod", "container"), 4: ("namespace", "pod", "uid", "container")},
    "attach": {3: ("namespace", "pod", "container"), 4: ("namespace", "pod", "uid", "container")},
    "portForward": {2: ("namespace", "pod"), 3: ("namespace", "pod", "uid")},
}
STREAMS: Final = frozenset({"exec", "attach", "portForward"})
_METHODS: Final = {"containerLogs": ("GET",), **dict.fromkeys(STREAMS, ("GET", "POST"))}
# go-restful has words of its own for what it does not know below these; elsewhere they are net/http's.
_RESTFUL: Final = frozenset({*_SHAPES, "pods", "runningpods", "stats"})


class Refused(VnodeError):
    """The answer to a request that is not served: HTTP status and plain text, in the kubelet's words."""

    def __init__(self, code: int, text: str, *, allow: str = "") -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.allow = allow


class Located(NamedTuple):
    """Where a home Pod's own mirror is: the peer's client and the mirror's key there. `uid` is the home Pod's."""

    client: Client
    key: Key
    uid: str


class NotStarted(Exception):
    """The Pod has no mirror, or one without a node: nothing runs. What is in its place at the peer may not be ours.

    `reason` is that of a kubelet's waiting container.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Locate(Protocol):
    """Finds Pods of one virtual node by their home name; answers from memory."""

    def __call__(self, namespace: str, pod: str) -> Located | None:
        """None when no such Pod is bound to this node. Raises `NotStarted` when it is, and does not run (yet)."""


class Bound(NamedTuple):
    """A Pod bound to this node, and its mirror when it is there."""

    local: Object
    remote: Object | None


class BoundPods(Protocol):
    """All Pods of one virtual node; answers from memory."""

    def __call__(self) -> Iterable[Bound]:
        """To be consumed before the next await."""


class Call(NamedTuple):
    """One served request. What a route has no use for is ""."""

    route: str
    namespace: str = ""
    pod: str = ""
    container: str = ""
    uid: str = ""


def parse(method: str, path: str) -> Call:
    """What is asked for, `path` being the request target before its query, as sent. Raises `Refused`."""
    if not _PATH.fullmatch(path) or {".", ".."} & set(path.split("/")):
        raise Refused(400, "invalid path\n")
    if report := _REPORT_PATHS.get(path):
        _allow(method, _RESTFUL_REPORTS.get(report, (method,)))
        return Call(report)
    for prefix, text in _DISABLED.items():
        if path == prefix or path.startswith(f"{prefix}/"):
            raise Refused(405, text)
    route, *segments = path[1:].split("/")
    fields = _SHAPES.get(route, {}).get(len(segments))
    if fields is None or "" in segments:
        raise Refused(404, "404: Page Not Found" if route in _RESTFUL else "404 page not found\n")
    _allow(method, _METHODS[route])
    return Call(route, **dict(zip(fields, segments, strict=True)))


def label(path: str) -> str:
    """The bounded name of a path for metrics."""
    if report := _REPORT_PATHS.get(path):
        return report
    route = path[1:].partition("/")[0]
    return route if route in _SHAPES else "other"


def find(locate: Locate, call: Call) -> Located:
    """The Pod a call is about. Raises `Refused` for a Pod of another node, or none, or one of another UID, or idle."""
    try:
        located = locate(call.namespace, call.pod)
    except NotStarted as idle:
        raise not_running(call, idle.reason) from None
    if located is None:
        raise no_such_pod(call)
    if call.uid and call.uid != located.uid:
        raise other_uid(call)
    return located


def no_such_pod(call: Call) -> Refused:
    """The kubelet has two wordings: getContainerLogs's, and the one of all others."""
    return Refused(404, f'pod "{call.pod}" does not exist' if call.route == "containerLogs" else "pod does not exist")


def other_uid(call: Call) -> Refused:
    """As a kubelet for attach and port-forward; for exec it would run the command in a Pod that was not meant."""
    if call.route == "portForward":
        return Refused(404, "pod not found")
    return Refused(500, f"pod {call.pod}_{call.namespace} not found")


def not_running(call: Call, reason: str = "ContainerCreating") -> Refused:
    """The answer of a kubelet whose Pod has no such container running (`kubelet_pods.go`, GetExec and its like)."""
    match call.route:
        case "containerLogs":
            waiting = f'container "{call.container}" in pod "{call.pod}" is waiting to start: {reason}'
            return Refused(400, waiting)
        case "exec":
            return Refused(500, f'container not found ("{call.container}")')
        case "attach":
            return Refused(500, f"container {call.container} not found in pod {call.pod}_{call.namespace}")
        case _:
            return Refused(500, f'pod not found ("{call.pod}_{call.namespace}")')


def unanswered(side: str, error: Exception) -> Refused:
    """The answer when the peer gives none. Its address is for the log, not for who asked."""
    log.warning("peer did not answer", extra={"peer": side, "error": str(error) or "timed out"})
    return Refused(500, f"peer {side} does not answer")


def _allow(method: str, methods: tuple[str, ...]) -> None:
    if method not in methods:
        raise Refused(405, "405: Method Not Allowed", allow=", ".join(methods))
