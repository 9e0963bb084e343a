"""`Usage` as a kubelet writes it: `/metrics/resource` and `/stats/summary`. Pure.

Names, texts, labels and order are those of k8s.io/kubernetes v1.37 pkg/kubelet/metrics/collectors/resource_metrics.go
and pkg/kubelet/apis/stats/v1alpha1; of the summary, what `only_cpu_and_memory=true` gives: the rest is optional there.
"""

from datetime import UTC, datetime
from typing import Final

import msgspec

from vnode.kube.objects import JsonDict, timestamp
from vnode.kubelet.exposition import Family, line_of, written
from vnode.kubelet.usage import Point, Usage

_START: Final = "container_start_time_seconds"
_ERROR: Final = "resource_scrape_error"


def resource_metrics(usage: Usage) -> bytes:
    """The text of `/metrics/resource`. Node and Pods are left out when the peer told nothing."""
    pods = sorted(usage.pods, key=lambda pod: pod.key)
    of_containers = [
        ({"container": name, "namespace": pod.key.namespace, "pod": pod.key.name}, point)
        for pod in pods
        for name, point in pod.containers.items()
    ]
    scopes: dict[str, list[tuple[dict[str, str], Point]]] = {
        "container": of_containers,
        "node": [] if usage.failed else [({}, usage.node)],
        "pod": [({"namespace": pod.key.namespace, "pod": pod.key.name}, pod.whole) for pod in pods],
    }
    families: dict[str, Family] = {}

    def add(name: str, kind: str, text: str, lines: list[str]) -> None:
        if lines:
            families[name] = Family([f"# HELP {name} [STABLE] {text}", f"# TYPE {name} {kind}"], lines)

    for scope, points in scopes.items():
        name = f"{scope}_cpu_usage_seconds_total"
        lines = [line_of(name, labels, point.cpu_s, int(point.time_s * 1000)) for labels, point in points]
        add(name, "counter", f"Cumulative cpu time consumed by the {scope} in core-seconds", lines)
        name = f"{scope}_memory_working_set_bytes"
        lines = [line_of(name, labels, point.memory, int(point.time_s * 1000)) for labels, point in points]
        add(name, "gauge", f"Current working set of the {scope} in bytes", lines)
    starts = [line_of(_START, labels, point.started_s) for labels, point in of_containers if point.started_s > 0]
    add(_START, "gauge", "Start time of the container since unix epoch in seconds", starts)
    failure = "1 if there was an error while getting container metrics, 0 otherwise"
    add(_ERROR, "gauge", failure, [line_of(_ERROR, {}, float(usage.failed))])
    return written(families)


def summary(usage: Usage, node: str) -> bytes:
    """The JSON of `/stats/summary`."""
    return msgspec.json.encode(
        {
            "node": {"nodeName": node, **_stats(usage.node)},
            "pods": [
                {
                    "podRef": {"name": pod.key.name, "namespace": pod.key.namespace, "uid": pod.uid},
                    "startTime": _time(pod.whole.started_s),
                    "containers": [{"name": name, **_stats(point)} for name, point in pod.containers.items()],
                    **_stats(pod.whole),
                }
                for pod in sorted(usage.pods, key=lambda pod: pod.key)
            ],
        }
    )


def _stats(point: Point) -> JsonDict:
    time = _time(point.time_s)
    return {
        "startTime": _time(point.started_s),
        "cpu": {
            "time": time,
            "usageNanoCores": round(point.cores * 1e9),
            "usageCoreNanoSeconds": round(point.cpu_s * 1e9),
        },
        "memory": {"time": time, "workingSetBytes": point.memory},
    }


def _time(moment_s: float) -> str | None:
    # A zero metav1.Time is null.
    return timestamp(datetime.fromtimestamp(moment_s, UTC)) if moment_s > 0 else None
