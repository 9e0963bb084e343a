"""The status of a Peer object: its shape, and what it says of what a session knows. Pure.

Nothing here is for machines alone: `kubectl get peers` is to answer "is all well?", and where it is not, `problem` says
what is wrong in one line. What moves all the time (the round trip) is shown only when it has changed for good, so that
a quiet peer writes nothing. Called by `peers.controller`; the CRD takes its schema from here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from vnode import names
from vnode.kube.objects import JsonDict, timestamp

MAX_MESSAGE: Final = 1024
MAX_NAMESPACES: Final = 100
CONDITIONS: Final = ("Accepted", "Reachable", "Authorized", "NodeReady", "Draining")
State = Literal["True", "False", "Unknown"]


class Condition(Struct, frozen=True, rename="camel"):
    """As `metav1.Condition`."""

    type: Annotated[str, Meta(description=", ".join(CONDITIONS))]
    status: State
    reason: Annotated[str, Meta(description="a word, listed in vnode's README")]
    message: str
    last_transition_time: Annotated[str, Meta(description="when `status` became what it is")]
    observed_generation: int


class Pods(Struct, frozen=True):
    """Home's Pods that are bound to the Node."""

    offloaded: Annotated[int, Meta(description="all of them, finished ones too")] = 0
    pending: Annotated[int, Meta(description="those that do not run yet")] = 0
    failing: Annotated[
        int, Meta(description="those that failed, are refused, or wait for an image or after a crash")
    ] = 0


class LastError(Struct, frozen=True):
    """The last thing that went wrong, be it over or not."""

    time: str
    message: str


class PeerStatus(Struct, frozen=True, rename="camel"):
    """The `status` of a Peer."""

    observed_generation: int = 0
    node_name: Annotated[str, Meta(description="the virtual Node")] = ""
    peer_version: Annotated[str, Meta(description="Kubernetes version of the peer, once it has been reached")] = ""
    round_trip: Annotated[str, Meta(description="of a request to the peer; renewed when it changes by much")] = ""
    pods: Pods = Pods()
    namespaces: Annotated[list[str], Meta(description="home namespaces with Pods there, the first hundred")] = []
    problem: Annotated[str, Meta(description="what is wrong now; empty: nothing")] = ""
    last_error: LastError | None = None
    conditions: list[Condition] = []


COLUMNS: Final[list[JsonDict]] = [
    {"name": "Node", "type": "string", "jsonPath": ".status.nodeName"},
    {"name": "Ready", "type": "string", "jsonPath": '.status.conditions[?(@.type=="NodeReady")].status'},
    {"name": "Pods", "type": "integer", "jsonPath": ".status.pods.offloaded"},
    {"name": "Pending", "type": "integer", "jsonPath": ".status.pods.pending"},
    {"name": "Failing", "type": "integer", "jsonPath": ".status.pods.failing"},
    {"name": "Version", "type": "string", "jsonPath": ".status.peerVersion"},
    {"name": "Round-trip", "type": "string", "jsonPath": ".status.roundTrip", "priority": 1},
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    {"name": "Problem", "type": "string", "jsonPath": ".status.problem"},
]


@dataclass(frozen=True, slots=True)
class Said:
    """A condition without its times."""

    status: State
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a session knows of its peer now. `answers` is None as long as the peer has not been asked."""

    answers: bool | None = None
    error: str = ""  # why it does not answer
    refusal: str = ""  # the peer's word on our credential, "" when it takes it
    forbidden: str = ""  # a right that is missing, without which nothing works
    node: Said | None = None  # the Ready condition of the Node; None: no Node of ours
    version: str = ""
    pods: Pods = field(default_factory=Pods)
    namespaces: Sequence[str] = ()
    round_trip_s: float | None = None


def read_status(raw: JsonDict) -> PeerStatus:
    """The status an object has; an empty one where it has none, or one that another version of us wrote."""
    try:
        return msgspec.convert(raw, PeerStatus)
    except msgspec.ValidationError:
        return PeerStatus()


def peer_status(
    before: PeerStatus,
    generation: int,
    node_name: str,
    *,
    accepted: Said,
    facts: Facts | None,
    draining: Said,
    failure: str,
    now: datetime,
) -> PeerStatus:
    """What the status is to be, given what it was. Equal to `before` when there is nothing new to say.

    `facts` is None while no session runs; `failure` says what has just ended one, "" when nothing did.
    """
    said = {
        "Accepted": accepted,
        "Reachable": _reachable(facts),
        "Authorized": _authorized(facts),
        "NodeReady": _node_ready(facts),
        "Draining": draining,
    }
    shown = {condition.type: condition for condition in before.conditions}
    problem = _problem(said)
    facts = facts or Facts(version=before.peer_version)
    return PeerStatus(
        observed_generation=generation,
        node_name=node_name,
        peer_version=facts.version or before.peer_version,
        round_trip=_round_trip(before.round_trip, facts.round_trip_s),
        pods=facts.pods,
        namespaces=sorted(facts.namespaces)[:MAX_NAMESPACES],
        problem=problem,
        last_error=_last_error(before, "" if draining.status == "True" else problem, failure[:MAX_MESSAGE], now),
        conditions=[_condition(kind, said[kind], shown.get(kind), generation, now) for kind in CONDITIONS],
    )


def as_json(status: PeerStatus) -> JsonDict:
    """The whole status, for a merge patch: what is not there any more is null."""
    built: JsonDict = msgspec.to_builtins(status)
    return built


def _reachable(facts: Facts | None) -> Said:
    if facts is None or (facts.answers is None and not facts.refusal):
        return Said("Unknown", names.NOT_CONNECTED, "the peer has not been asked yet")
    if facts.answers or facts.refusal:  # who refuses us is there
        return Said("True", names.PEER_REACHABLE)
    return Said("False", names.PEER_UNREACHABLE, facts.error)


def _authorized(facts: Facts | None) -> Said:
    if facts is not None and facts.refusal:
        return Said("False", names.CREDENTIAL_REFUSED, facts.refusal)
    if facts is not None and facts.forbidden:
        return Said("False", names.RIGHT_MISSING, facts.forbidden)
    if facts is not None and facts.answers:
        return Said("True", names.CREDENTIAL_ACCEPTED)
    return Said("Unknown", names.NOT_CONNECTED, "the peer does not answer")


def _node_ready(facts: Facts | None) -> Said:
    if facts is None or facts.node is None:
        return Said("Unknown", names.NOT_CONNECTED, "there is no Node of ours yet")
    return facts.node


def _problem(said: dict[str, Said]) -> str:
    """The first thing to know: what is being done, else what is wrong, from its root on."""
    if said["Draining"].status == "True":
        return f"{said['Draining'].reason}: {said['Draining'].message}"[:MAX_MESSAGE]
    for kind in ("Accepted", "Authorized", "Reachable", "NodeReady"):
        if said[kind].status == "False":
            return f"{said[kind].reason}: {said[kind].message}"[:MAX_MESSAGE]
    return ""


def _last_error(before: PeerStatus, problem: str, failure: str, now: datetime) -> LastError | None:
    """A problem is told anew when it begins anew, a session's failure each time it is another one."""
    message, known = problem or failure, before.last_error
    begins = bool(problem) and not before.problem
    if message and (known is None or known.message != message or begins):
        return LastError(timestamp(now), message)
    return known


def _round_trip(shown: str, measured_s: float | None) -> str:
    if measured_s is None:
        return shown
    milliseconds = max(1, round(measured_s * 1000))
    held = int(shown.removesuffix("ms")) if shown.endswith("ms") and shown[:-2].isdecimal() else 0
    # A few milliseconds more or less, or a busy moment, are no news.
    if held and (held / 3 <= milliseconds <= held * 3 or abs(milliseconds - held) < 10):
        return shown
    return f"{milliseconds}ms"


def _condition(kind: str, said: Said, shown: Condition | None, generation: int, now: datetime) -> Condition:
    since = shown.last_transition_time if shown is not None and shown.status == said.status else timestamp(now)
    return Condition(kind, said.status, said.reason, said.message[:MAX_MESSAGE], since, generation)
