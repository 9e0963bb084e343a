"""A Pod in a word: what `kubectl get pods` prints, and the state that is counted."""

from typing import Any

import msgspec
import pytest

from tests.builders import condition, container_status, finished, raw_pod, running
from vnode import names
from vnode.observe import states
from vnode.observe.objects import Pod


def pod(status: dict[str, Any], **more: Any) -> Pod:
    return msgspec.convert(raw_pod(status=status, **more), Pod, strict=False)


def waiting(reason: str, **more: Any) -> dict[str, Any]:
    return container_status(ready=False, started=False, state={"waiting": {"reason": reason}}, **more)


def ended(code: int, reason: str = "", signal: int = 0, **more: Any) -> dict[str, Any]:
    state = {"terminated": {"exitCode": code, "reason": reason, "signal": signal}}
    return container_status(ready=False, started=False, state=state, **more)


def pending(*statuses: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"phase": "Pending", "containerStatuses": list(statuses), **more}


REFUSED = [condition(names.REMOTE_CONDITION, "False", reason="UnsupportedField")]
INIT = {"initContainers": [{"name": "one"}, {"name": "two"}]}
SIDECAR = {"initContainers": [{"name": "one", "restartPolicy": "Always"}]}


@pytest.mark.parametrize(
    ("seen", "word", "state"),
    [
        (pod({}), "Pending", "pending"),
        (pod(running()), "Running", "ready"),
        (pod(running(ready=False)), "Running", "unready"),
        (pod(finished()), "Completed", "done"),
        (pod({"phase": "Succeeded"}), "Succeeded", "done"),
        (pod({"phase": "Failed", "reason": "RemotePodLost"}), "RemotePodLost", "failing"),
        (pod({**finished("Failed", 3), "containerStatuses": [ended(3)]}), "ExitCode:3", "failing"),
        (pod({**finished("Failed", 137), "containerStatuses": [ended(137, signal=9)]}), "Signal:9", "failing"),
        (pod(pending(waiting("ContainerCreating"))), "ContainerCreating", "pending"),
        (pod(pending(waiting("ImagePullBackOff"))), "ImagePullBackOff", "failing"),
        (pod(pending(conditions=REFUSED)), "UnsupportedField", "failing"),
        (pod({**running(), "containerStatuses": [waiting("CrashLoopBackOff")]}), "CrashLoopBackOff", "failing"),
        (pod(running(), deletionTimestamp="2026-05-01T12:00:30Z"), "Terminating", "leaving"),
        (
            pod({**running(), "containerStatuses": [ended(0, "Completed"), container_status("side")]}),
            "Running",
            "ready",
        ),
        (
            pod({**running(ready=False), "containerStatuses": [ended(0, "Completed"), container_status("side")]}),
            "NotReady",
            "unready",
        ),
        (
            pod(pending(initContainerStatuses=[ended(0, name="one"), waiting("", name="two")]), spec=INIT),
            "Init:1/2",
            "pending",
        ),
        (
            pod(pending(initContainerStatuses=[waiting("PodInitializing", name="one")]), spec=INIT),
            "Init:0/2",
            "pending",
        ),
        (pod(pending(initContainerStatuses=[ended(1, "Error", name="one")]), spec=INIT), "Init:Error", "pending"),
        (
            pod(pending(initContainerStatuses=[waiting("CrashLoopBackOff", name="one")]), spec=INIT),
            "Init:CrashLoopBackOff",
            "failing",
        ),
        (pod({**running(), "initContainerStatuses": [container_status("one")]}, spec=SIDECAR), "Running", "ready"),
    ],
)
def test_each_pod_has_kubectls_word_and_one_state(seen: Pod, word: str, state: str) -> None:
    assert (states.word(seen), states.state(seen)) == (word, state)


def test_ready_counts_sidecars_and_restarts_count_all() -> None:
    seen = pod({**running(restarts=2), "initContainerStatuses": [container_status("one", 3)]}, spec=SIDECAR)
    assert states.ready(seen) == (2, 2)
    assert states.restarts(seen) == 5
    seen = pod({**running(), "initContainerStatuses": [ended(0, name="one")]}, spec=INIT)
    assert states.ready(seen) == (1, 1)
