"""A Pod in a word: the STATUS that `kubectl get pods` would print, and the few states that are counted. Pure."""

from typing import Final, Literal, get_args

from vnode import names
from vnode.observe.objects import Container, Defined, Pod, containers
from vnode.pods.status import BEGINNINGS, failing

State = Literal["ready", "unready", "pending", "failing", "done", "leaving"]
STATES: Final[tuple[State, ...]] = get_args(State)


def state(pod: Pod) -> State:
    """The state a Pod is counted in; `failing` as a Peer counts it."""
    if pod.metadata.deletion_timestamp is not None:
        return "leaving"
    if pod.status.phase == "Succeeded":
        return "done"
    remote = pod.condition(names.REMOTE_CONDITION)
    refused = remote is not None and remote.status == "False"
    waits = {each.state.waiting.reason for each in containers(pod) if each.state.waiting}
    if failing(pod.status.phase, refused=refused, waiting=waits):
        return "failing"
    if pod.status.phase == "Pending":
        return "pending"
    ready = pod.condition("Ready")
    return "ready" if ready and ready.status == "True" else "unready"


def word(pod: Pod) -> str:
    """What kubectl prints under STATUS (its `printPod`, v1.37); a Pod that vnode had to refuse shows why instead."""
    if pod.metadata.deletion_timestamp is not None:
        return "Terminating"
    remote = pod.condition(names.REMOTE_CONDITION)
    if remote and remote.status == "False" and pod.status.phase == "Pending":
        return remote.reason
    if beginning := _initialising(pod):
        return beginning
    said = next((reason for each in pod.status.container_statuses if (reason := _reason(each))), "")
    if said == "Completed" and any(each.ready and each.state.running for each in pod.status.container_statuses):
        ready = pod.condition("Ready")
        return "Running" if ready and ready.status == "True" else "NotReady"
    return said or pod.status.reason or pod.status.phase


def ready(pod: Pod) -> tuple[int, int]:
    """How many containers are ready, and how many there are; sidecars count, what merely initialises does not."""
    sidecars = {each.name for each in pod.spec.init_containers if _stays(each)}
    counted = [each for each in pod.status.init_container_statuses if each.name in sidecars]
    counted += pod.status.container_statuses
    return sum(each.ready for each in counted), len(sidecars) + len(pod.spec.containers)


def restarts(pod: Pod) -> int:
    """How often its containers were started anew."""
    return sum(each.restart_count for each in containers(pod))


def _initialising(pod: Pod) -> str:
    sidecars = {each.name for each in pod.spec.init_containers if _stays(each)}
    for done, each in enumerate(pod.status.init_container_statuses):
        ended = each.state.terminated
        if (ended and ended.exit_code == 0) or (each.name in sidecars and each.started):
            continue
        reason = _reason(each)
        on_its_way = each.state.waiting is not None and reason in BEGINNINGS
        return f"Init:{reason}" if reason and not on_its_way else f"Init:{done}/{len(pod.spec.init_containers)}"
    return ""


def _reason(status: Container) -> str:
    if status.state.waiting:
        return status.state.waiting.reason
    if ended := status.state.terminated:
        return ended.reason or (f"Signal:{ended.signal}" if ended.signal else f"ExitCode:{ended.exit_code}")
    return ""


def _stays(container: Defined) -> bool:
    return container.restart_policy == "Always"
