"""Hypothesis strategies for what several test modules draw: quantities, statuses of a Pod, histories of a resource."""

from typing import Any

from hypothesis import strategies as st

from tests.builders import EARLIER, STAMP, condition, container_status
from vnode.kube.objects import JsonDict

SUFFIXES = ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"]
quantities = st.builds(
    lambda sign, whole, part, tail: f"{sign}{whole}{part}{tail}",
    st.sampled_from(["", "+", "-"]),
    st.integers(0, 10**12),
    st.sampled_from(["", ".", ".5", ".125", ".000001"]),
    st.sampled_from([*SUFFIXES, "e3", "E3", "e-3", "e+2", "E-2"]),
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
moments = st.sampled_from([EARLIER, STAMP, "2026-05-01T12:30:00Z"])
words = st.sampled_from(["True", "False", "Unknown"])

_states = st.one_of(
    st.builds(lambda at: {"running": {"startedAt": at}}, moments),
    st.builds(lambda why: {"waiting": {"reason": why}}, st.sampled_from(["CrashLoopBackOff", "ContainerCreating"])),
    st.builds(lambda code: {"terminated": {"exitCode": code, "finishedAt": STAMP}}, st.integers(0, 137)),
)


def container_statuses(names: list[str]) -> st.SearchStrategy[list[JsonDict]]:
    """Statuses of some of the containers called `names`, in any order."""
    one = st.builds(
        lambda name, restarts, ready, state: container_status(name, restarts, ready=ready, state=state),
        st.sampled_from(names),
        st.integers(0, 5),
        st.booleans(),
        _states,
    )
    return st.lists(one, max_size=len(names), unique_by=lambda entry: str(entry["name"]))


def _condition(kind: str, word: str, since: str, fields: dict[str, Any]) -> JsonDict:
    return condition(kind, word, since, **fields)


conditions = st.lists(
    st.builds(
        _condition,
        st.sampled_from(
            ["PodScheduled", "Initialized", "Ready", "ContainersReady", "DisruptionTarget", "PodResizePending", "New"]
        ),
        words,
        moments,
        st.fixed_dictionaries(
            {},
            optional={
                "reason": st.sampled_from(["Because", "Unschedulable"]),
                "message": st.sampled_from(["so", "0/3 nodes"]),
                "lastProbeTime": st.none(),
                "observedGeneration": st.integers(1, 9),
            },
        ),
    ),
    max_size=5,
    unique_by=lambda entry: str(entry["type"]),
)

numbers = st.integers(0, 3)
unheard_of = st.one_of(
    numbers, st.lists(numbers, max_size=2), st.dictionaries(st.sampled_from(["a", "b"]), numbers, max_size=2)
)

# "injected" stands for a sidecar that the peer's own webhooks put in.
statuses = st.fixed_dictionaries(
    {"phase": st.sampled_from(["Pending", "Running", "Running", "Succeeded", "Failed", "Unknown"])},
    optional={
        "startTime": moments,
        "hostIP": st.sampled_from(["172.16.0.9", "172.16.0.8"]),
        "podIP": st.sampled_from(["10.7.0.3", "10.7.0.4"]),
        "message": st.sampled_from(["low on memory", "moved"]),
        "reason": st.sampled_from(["Evicted", "Moved"]),
        "qosClass": st.just("Burstable"),
        "observedGeneration": st.integers(1, 9),
        "resize": st.sampled_from(["Proposed", "InProgress"]),
        "unheardOf": unheard_of,
        "conditions": conditions,
        "containerStatuses": container_statuses(["main", "side", "injected"]),
        "initContainerStatuses": container_statuses(["first", "injected"]),
    },
)
