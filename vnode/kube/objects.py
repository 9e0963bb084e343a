"""Typed readers over raw Kubernetes JSON: keys, metadata, quantities, times. Pure.

Objects stay as the apiserver sent them. `Object` decodes an object's metadata once and keeps `spec`,
`status` and the rest as bytes (about 7 KB a Pod, where a dict takes 34), so a mirror carries fields it has
never heard of. Not here: anything that knows what a field means to vnode; that is `pods`, `node`, `reflect`.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal, DecimalException
from typing import Any, NamedTuple

import msgspec

from vnode.names import DOMAIN

Json = Mapping[str, Any]
JsonDict = dict[str, Any]


class Key(NamedTuple):
    """Where an object is: `namespace` is "" for cluster-scoped kinds."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class Meta(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """`ObjectMeta`, less what nobody reads (`managedFields` above all: half of a Pod's bytes)."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str | None = None  # servers before 1.34 write null into bookmarks
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    finalizers: list[str] = []
    owner_references: list[dict[str, Any]] = []


class _Wire(msgspec.Struct, gc=False):
    metadata: Meta
    spec: msgspec.Raw = msgspec.Raw(b"")
    status: msgspec.Raw = msgspec.Raw(b"")


class _WireEvent(msgspec.Struct, gc=False):
    type: str
    object: msgspec.Raw


class _WireListMeta(msgspec.Struct, rename="camel", gc=False):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class _WireList(msgspec.Struct, gc=False):
    metadata: _WireListMeta
    items: list[msgspec.Raw] | None = None


class Object(msgspec.Struct, frozen=True, gc=False):
    """One object: metadata typed, spec and status as bytes, decoded anew by whoever reads them.

    Equality compares everything but `resourceVersion` and the fields `Meta` leaves out, so a store can tell a
    change that matters from one that does not (`same`).
    """

    meta: Meta
    raw_spec: bytes
    raw_status: bytes

    @property
    def key(self) -> Key:
        return Key(self.meta.namespace, self.meta.name)

    @property
    def uid(self) -> str:
        return self.meta.uid

    @property
    def version(self) -> int:
        """The resourceVersion as the number it is (KEP-5504); 0 when the server's are not numbers."""
        return version_number(self.meta.resource_version)

    @property
    def leaving(self) -> bool:
        return self.meta.deletion_timestamp is not None

    def spec(self) -> JsonDict:
        """A fresh dict each time: the caller may change it."""
        return _as_dict(self.raw_spec)

    def status(self) -> JsonDict:
        """A fresh dict each time: the caller may change it."""
        return _as_dict(self.raw_status)

    def same(self, other: "Object") -> bool:
        """True when nothing vnode reads differs. Of metadata alone the version counts: what it tells of is not held."""
        if not (self.raw_spec or self.raw_status) and self.version != other.version:
            return False
        return (
            self.raw_status == other.raw_status
            and self.raw_spec == other.raw_spec
            and msgspec.structs.replace(self.meta, resource_version="")
            == msgspec.structs.replace(other.meta, resource_version="")
        )


def version_number(text: str) -> int:
    """A resourceVersion as the number it is; 0 when it is none."""
    return int(text) if text.isascii() and text.isdigit() else 0


class WatchEvent(NamedTuple):
    """One line of a watch. For ERROR and BOOKMARK read `status` or `object.meta.resource_version`."""

    type: str
    raw: msgspec.Raw


_object = msgspec.json.Decoder(_Wire)
_event = msgspec.json.Decoder(_WireEvent)
_list = msgspec.json.Decoder(_WireList)


def _as_dict(raw: bytes) -> JsonDict:
    if not raw:
        return {}
    decoded = msgspec.json.decode(raw)
    return decoded if isinstance(decoded, dict) else {}


def _from_wire(wire: _Wire) -> Object:
    # A `Raw` is a view on the whole line: copy, or the line lives as long as the store.
    return Object(wire.metadata, bytes(wire.spec), bytes(wire.status))


def parse_object(data: bytes | msgspec.Raw) -> Object:
    """Decode one object. Raises `msgspec.DecodeError` on what is not one."""
    return _from_wire(_object.decode(data))


def parse_metadata(data: bytes | msgspec.Raw) -> Object:
    """Decode what `metadata_alone` leaves of an object."""
    return metadata_alone(parse_object(data))


def parse_flat(data: bytes | msgspec.Raw) -> Object:
    """Decode one object of a kind without spec and status (an Event): `raw_spec` is the whole of it."""
    return Object(_object.decode(data).metadata, bytes(data), b"")


def parse_list(data: bytes, parse: Callable[[msgspec.Raw], Object] = parse_object) -> tuple[list[Object], str, str]:
    """Decode one page of a list: its objects, its resourceVersion, and its continue token ("" at the end)."""
    wire = _list.decode(data)
    return [parse(item) for item in wire.items or []], wire.metadata.resource_version, wire.metadata.continue_


def parse_event(line: bytes) -> WatchEvent:
    """Decode one line of a watch stream."""
    wire = _event.decode(line)
    return WatchEvent(wire.type, wire.object)


def metadata_alone(item: Object) -> Object:
    """What those who follow metadata alone read: which object it is, in which version, its labels, our annotations.

    Others' annotations can hold whole objects, Secrets' data too (`kubectl.kubernetes.io/last-applied-configuration`).
    """
    meta = item.meta
    kept = Meta(
        name=meta.name,
        namespace=meta.namespace,
        uid=meta.uid,
        resource_version=meta.resource_version,
        deletion_timestamp=meta.deletion_timestamp,
        labels=meta.labels,
        annotations={key: value for key, value in meta.annotations.items() if key.startswith(f"{DOMAIN}/")},
    )
    return Object(kept, b"", b"")


def from_dict(raw: Json) -> Object:
    """An `Object` from decoded JSON (answers of single requests, tests)."""
    return parse_object(msgspec.json.encode(raw))


def without_empty(mapping: Json) -> JsonDict:
    """`mapping` less the fields that say nothing: to an apiserver absent is as good."""
    return {name: value for name, value in mapping.items() if value not in ([], {}, None)}


_SUFFIXES = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    "k": Decimal("1e3"),
    "M": Decimal("1e6"),
    "G": Decimal("1e9"),
    "T": Decimal("1e12"),
    "P": Decimal("1e15"),
    "E": Decimal("1e18"),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
    "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}


_MAX_EXPONENT = 30  # as an integer, 1e400000 takes seconds
_MOST = Decimal(2**63 - 1)  # apimachinery makes larger ones this


def quantity(text: str | int | float) -> Decimal:
    """A `resource.Quantity` as a number (apimachinery `pkg/api/resource`).

    Raises ValueError when it is none, or further from 1 than any amount of anything.
    """
    text = str(text)
    digits = text.rstrip("numkKMGTPEi")
    suffix = text[len(digits) :]
    if not digits or not set(digits) <= set("0123456789.+-eE"):
        raise ValueError(f"{text!r} is not a quantity")
    try:
        value = Decimal(digits) * _SUFFIXES[suffix]
    except (DecimalException, KeyError):
        raise ValueError(f"{text!r} is not a quantity") from None
    if abs(value.adjusted()) > _MAX_EXPONENT:
        raise ValueError(f"{text!r} is not a quantity")
    return value


def format_quantity(value: Decimal, *, binary: bool = False) -> str:
    """The canonical text of a non-negative number: whole (`12`, with `binary` `48Ki`), else milli (`1500m`).

    As an apiserver does, it writes what is larger than an int64 as the largest.
    """
    value = min(value, _MOST)
    if binary and value == value.to_integral_value():
        number, suffix = int(value), ""
        for step in ("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"):
            if number == 0 or number % 1024:
                break
            number, suffix = number // 1024, step
        return f"{number}{suffix}"
    if value == value.to_integral_value():
        return str(int(value))
    return f"{int((value * 1000).to_integral_value())}m"


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC with whole seconds, as `metav1.Time` is written."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro_timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC with microseconds, as `metav1.MicroTime` is written."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def utc_now() -> datetime:
    """The one clock for stamps; handed in wherever a stamp is made."""
    return datetime.now(UTC)
