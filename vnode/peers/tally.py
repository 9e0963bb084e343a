"""Counts of one node's Pods at home, kept up to date change by change: a status that is told often must cost nothing.

Pure, but for being fed by an informer. Made by `session`; read for a Peer's status.
"""

from collections import Counter

import msgspec

from vnode.kube.objects import Key, Object
from vnode.names import REMOTE_CONDITION
from vnode.peers.status import Pods
from vnode.pods.status import failing


class _Condition(msgspec.Struct, frozen=True, gc=False):
    type: str
    status: str


class _Waiting(msgspec.Struct, frozen=True, gc=False):
    reason: str = ""


class _State(msgspec.Struct, frozen=True, gc=False):
    waiting: _Waiting | None = None


class _Container(msgspec.Struct, frozen=True, gc=False):
    state: _State = _State()


class _Status(msgspec.Struct, rename="camel", frozen=True, gc=False):
    phase: str = "Pending"
    conditions: list[_Condition] = []
    init_container_statuses: list[_Container] = []
    container_statuses: list[_Container] = []


class Tally:
    """How many Pods there are, how many of them wait or fail, and the namespaces they are in."""

    def __init__(self) -> None:
        self._states: dict[Key, str] = {}
        self._counts: Counter[str] = Counter()
        self._namespaces: Counter[str] = Counter()

    def changed(self, key: Key, _: Object | None, now: Object | None) -> None:
        """An informer's handler."""
        held = self._states.pop(key, None)
        if held is not None:
            self._counts[held] -= 1
            self._namespaces[key.namespace] -= 1
        if now is not None:
            state = self._states[key] = _state(now)
            self._counts[state] += 1
            self._namespaces[key.namespace] += 1

    @property
    def pods(self) -> Pods:
        return Pods(len(self._states), self._counts["pending"], self._counts["failing"])

    @property
    def namespaces(self) -> list[str]:
        return [namespace for namespace, count in self._namespaces.items() if count]


def _state(pod: Object) -> str:
    """`failing` before `pending` before all else; what has no status yet is pending."""
    status = msgspec.json.decode(pod.raw_status or b"{}", type=_Status)
    waiting = [
        container.state.waiting.reason
        for container in (*status.init_container_statuses, *status.container_statuses)
        if container.state.waiting
    ]
    refused = any(each.type == REMOTE_CONDITION and each.status == "False" for each in status.conditions)
    if failing(status.phase, refused=refused, waiting=waiting):
        return "failing"
    return "pending" if status.phase == "Pending" else "other"
