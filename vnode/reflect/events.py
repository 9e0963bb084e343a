"""What happens to a mirror, told at home on its Pod: an Event of the peer becomes one of home. Pure.

`reflect.announcer` follows and writes. The peer is not trusted: of its Event only known fields of the right type and
size come along, and only about the Pod whose own mirror it names by uid.
"""

import hashlib
import re
from typing import Final

import msgspec

from vnode.kube.objects import Json, JsonDict, Key, Object

MAX_MESSAGE: Final = 1024  # the apiserver's limits for an Event's fields
MAX_FIELD: Final = 128
MAX_POD: Final = 230  # of the Pod's name, so that name, dot and digest stay within 253
_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,9})?Z")


class _Involved(msgspec.Struct, rename="camel"):
    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""
    field_path: str = ""


class _Source(msgspec.Struct):
    component: str = ""


class _Series(msgspec.Struct, rename="camel"):
    count: int = 0
    last_observed_time: str | None = None


class Happening(msgspec.Struct, rename="camel"):
    """What a peer's Event says (core/v1, also as written through events.k8s.io)."""

    involved_object: _Involved = msgspec.field(default_factory=_Involved)
    type: str = ""
    reason: str = ""
    message: str = ""
    count: int | None = None
    series: _Series | None = None
    source: _Source = msgspec.field(default_factory=_Source)
    reporting_component: str = ""
    first_timestamp: str | None = None
    last_timestamp: str | None = None
    event_time: str | None = None

    @property
    def place(self) -> Key:
        """Where at the peer the object is that it is about."""
        return Key(self.involved_object.namespace, self.involved_object.name)

    @property
    def times(self) -> int:
        """How often it happened, at least once."""
        return max(1, self.count or 0, self.series.count if self.series else 0)

    @property
    def last(self) -> str:
        """When it happened last, RFC 3339 in whole seconds; "" when it says nothing one can read."""
        return _seconds(self.series.last_observed_time if self.series else None, self.last_timestamp, self.event_time)

    @property
    def first(self) -> str:
        """When it happened first, likewise."""
        return _seconds(self.first_timestamp, self.event_time, self.last_timestamp)


_happening = msgspec.json.Decoder(Happening)


def happening(event: Object) -> Happening | None:
    """What an Event (read flat) says about a Pod; None when it is none, or nothing that home needs to be told.

    That the peer's scheduler has placed a mirror is no news: home has a `Scheduled` of its own on the same Pod, and a
    second one would be a write for each Pod there is.
    """
    try:
        found = _happening.decode(event.raw_spec)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    placed = found.reason == "Scheduled" and found.type == "Normal"
    about_pod = found.involved_object.kind == "Pod" and found.involved_object.uid and found.last
    return found if about_pod and not placed else None


def event_name(event: Object, local: Object) -> str:
    """The name at home: one for each of the peer's Events and Pods, the same in every run."""
    return name_at_home(event.uid, local.meta.name, local.uid)


def name_at_home(event_uid: str, pod: str, pod_uid: str) -> str:
    """As `event_name`, for those who have the parts."""
    digest = hashlib.sha256(f"{event_uid}/{pod_uid}".encode()).hexdigest()[:16]
    return f"{pod[:MAX_POD]}.{digest}"


def home_event(found: Happening, name: str, local: Object, peer: str) -> JsonDict:
    """The Event as home is to have it: on the home Pod, of the peer's component, `peer` as the reporting instance."""
    component = (found.source.component or found.reporting_component)[:MAX_FIELD]
    involved = {
        "apiVersion": "v1",
        "kind": "Pod",
        "namespace": local.meta.namespace,
        "name": local.meta.name,
        "uid": local.uid,
    }
    if found.involved_object.field_path:
        involved["fieldPath"] = found.involved_object.field_path[:MAX_MESSAGE]
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"namespace": local.meta.namespace, "name": name},
        "involvedObject": involved,
        "type": "Warning" if found.type == "Warning" else "Normal",
        "reason": found.reason[:MAX_FIELD],
        "source": {"component": component, "host": peer},
        "reportingComponent": component,
        "reportingInstance": peer,
        "firstTimestamp": found.first,
        **again(found),
    }


def again(found: Happening) -> Json:
    """What changes when it happens again."""
    return {"message": found.message[:MAX_MESSAGE], "count": found.times, "lastTimestamp": found.last}


def _seconds(*moments: str | None) -> str:
    for moment in moments:
        if moment and (match := _TIME.fullmatch(moment)):
            return f"{match[1]}Z"
    return ""
