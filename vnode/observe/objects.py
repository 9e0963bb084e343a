"""The part of apiservers' answers that these commands read: Nodes, Pods, Events, Peers as typed objects. Pure.

Only for reading: what is not named here is dropped while decoding, so that thousands of Pods cost little. Called by
`gather`, which decodes them, and by all that makes reports of them.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")


class _Read(msgspec.Struct, frozen=True, rename="camel"):
    """JSON's names are camel case."""


class Owner(_Read, frozen=True):
    """An owner reference."""

    kind: str
    name: str
    controller: bool = False


class Write(_Read, frozen=True):
    """An entry of `managedFields`: who wrote last through which endpoint, and when."""

    manager: str = ""
    subresource: str = ""
    time: datetime | None = None


class Meta(_Read, frozen=True):
    """`ObjectMeta`."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    deletion_grace_period_seconds: int = 0
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: list[Owner] = []
    managed_fields: list[Write] = []


class Condition(_Read, frozen=True):
    """A condition of a Node, a Pod or a Peer."""

    type: str
    status: str = "Unknown"
    reason: str = ""
    message: str = ""
    last_transition_time: datetime | None = None


class Waiting(_Read, frozen=True):
    """A container that waits."""

    reason: str = ""
    message: str = ""


class Running(_Read, frozen=True):
    """A container that runs."""

    started_at: datetime | None = None


class Terminated(_Read, frozen=True):
    """A container that has ended."""

    exit_code: int = 0
    signal: int = 0
    reason: str = ""
    message: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None


class State(_Read, frozen=True):
    """At most one of them is there."""

    waiting: Waiting | None = None
    running: Running | None = None
    terminated: Terminated | None = None


class Container(_Read, frozen=True):
    """The status of a container."""

    name: str
    ready: bool = False
    started: bool | None = None
    restart_count: int = 0
    state: State = State()
    last_state: State = State()


class Defined(_Read, frozen=True):
    """A container of a Pod's spec."""

    name: str
    restart_policy: str = ""


class PodSpec(_Read, frozen=True):
    """Where a Pod is, and what is in it."""

    node_name: str = ""
    containers: list[Defined] = []
    init_containers: list[Defined] = []


class PodStatus(_Read, frozen=True):
    """How it is."""

    phase: str = "Pending"
    reason: str = ""
    message: str = ""
    pod_ip: str = msgspec.field(default="", name="podIP")
    conditions: list[Condition] = []
    container_statuses: list[Container] = []
    init_container_statuses: list[Container] = []


class Pod(_Read, frozen=True):
    """A Pod, at home or at a peer."""

    metadata: Meta = Meta()
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    def condition(self, kind: str) -> Condition | None:
        """Its condition of that type."""
        return found(self.status.conditions, kind)


class Address(_Read, frozen=True):
    """An address of a Node."""

    type: str
    address: str


class Endpoint(_Read, frozen=True):
    """A port; its name is capital in the API."""

    port: int = msgspec.field(default=0, name="Port")


class Endpoints(_Read, frozen=True):
    """The kubelet's."""

    kubelet_endpoint: Endpoint = Endpoint()


class NodeInfo(_Read, frozen=True):
    """What a virtual Node says of its peer."""

    kubelet_version: str = ""


class NodeSpec(_Read, frozen=True):
    """What an administrator says of it."""

    unschedulable: bool = False


class NodeStatus(_Read, frozen=True):
    """How it is."""

    conditions: list[Condition] = []
    addresses: list[Address] = []
    allocatable: dict[str, str] = {}
    daemon_endpoints: Endpoints = Endpoints()
    node_info: NodeInfo = NodeInfo()


class Node(_Read, frozen=True):
    """A virtual Node."""

    metadata: Meta = Meta()
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()

    def condition(self, kind: str) -> Condition | None:
        """Its condition of that type."""
        return found(self.status.conditions, kind)


class Regarded(_Read, frozen=True):
    """What an Event is about."""

    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""


class Source(_Read, frozen=True):
    """Who says it, in the older Events. `host`: of vnode's own the virtual Node, of a peer's told by it the peer."""

    component: str = ""
    host: str = ""


class Series(_Read, frozen=True):
    """Repetition, in the newer ones."""

    count: int = 0
    last_observed_time: datetime | None = None


class Event(_Read, frozen=True):
    """An Event of core/v1, whichever of the two APIs it was written through."""

    metadata: Meta = Meta()
    involved_object: Regarded = Regarded()
    type: str = ""
    reason: str = ""
    message: str = ""
    count: int | None = None
    first_timestamp: datetime | None = None
    last_timestamp: datetime | None = None
    event_time: datetime | None = None
    series: Series | None = None
    source: Source = Source()
    reporting_component: str = ""

    @property
    def first(self) -> datetime | None:
        return self.first_timestamp or self.event_time or self.last_timestamp or self.metadata.creation_timestamp

    @property
    def last(self) -> datetime | None:
        return (self.series and self.series.last_observed_time) or self.last_timestamp or self.first

    @property
    def times(self) -> int:
        return (self.series.count if self.series else self.count) or 1

    @property
    def by(self) -> str:
        component = self.reporting_component or self.source.component
        return f"{component} at {self.source.host}" if self.source.host else component


class LastError(_Read, frozen=True):
    """Of a Peer."""

    time: datetime
    message: str


class PeerStatus(_Read, frozen=True):
    """What vnode says of a Peer."""

    node_name: str = ""
    peer_version: str = ""
    problem: str = ""
    last_error: LastError | None = None


class Peer(_Read, frozen=True):
    """A Peer object, where peers come from such."""

    metadata: Meta = Meta()
    status: PeerStatus = PeerStatus()


class ListMeta(_Read, frozen=True):
    """Of a page of a list."""

    continue_: str = msgspec.field(default="", name="continue")


class Page(_Read, Generic[T], frozen=True):
    """A page of a list."""

    metadata: ListMeta = ListMeta()
    items: list[T] | None = None


def found(conditions: list[Condition], kind: str) -> Condition | None:
    """The condition of that type."""
    return next((condition for condition in conditions if condition.type == kind), None)


def containers(pod: Pod) -> Iterator[Container]:
    """The statuses of all its containers, those that initialise it first."""
    yield from pod.status.init_container_statuses
    yield from pod.status.container_statuses
