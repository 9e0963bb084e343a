"""kube.objects: quantities as Kubernetes reads them, metadata typed, everything else kept byte for byte."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubernetes.utils.quantity import parse_quantity

from tests.builders import pod, raw_pod
from tests.strategies import json_values, quantities
from vnode.kube.objects import (
    Key,
    format_quantity,
    from_dict,
    micro_timestamp,
    parse_event,
    parse_list,
    parse_object,
    quantity,
    timestamp,
)


@given(quantities)
def test_a_quantity_is_what_the_official_client_says(text: str) -> None:
    assert quantity(text) == parse_quantity(text)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("100m", "0.1"),
        ("1", "1"),
        ("1.5Gi", "1610612736"),
        ("1E", "1e18"),
        ("1E3", "1000"),
        ("12e-3", "0.012"),
        (".5", "0.5"),
        ("5.", "5"),
        (3, "3"),
        (0.5, "0.5"),
    ],
)
def test_quantities_are_numbers(text: Any, number: str) -> None:
    assert quantity(text) == Decimal(number)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "m",
        "Ki",
        "1.2.3",
        "1_000",
        "one",
        "1mm",
        "1ki",
        "1K1",
        " 1",
        "1 ",
        "0x10",
        "NaN",
        "inf",
        "--1",
        "1e",
        "²",
        "1e999999999",
        "1e999999999Ki",
        "1e400000",  # a number, but one that costs seconds as an integer
        "1e-400000",
        "1e31",
        "None",
    ],
)
def test_what_is_no_quantity_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        quantity(text)


@given(st.text(max_size=12))
def test_any_text_is_a_number_or_a_value_error(text: str) -> None:
    with suppress(ValueError):  # and nothing else
        assert isinstance(quantity(text), Decimal)


@given(st.integers(0, 2**60), st.booleans())
def test_a_whole_number_survives_being_written_and_read(number: int, binary: bool) -> None:
    assert quantity(format_quantity(Decimal(number), binary=binary)) == number


def test_more_than_an_int64_is_written_as_the_largest() -> None:
    assert format_quantity(Decimal("1e30"), binary=True) == str(2**63 - 1)


@given(st.integers(0, 10**9))
def test_thousandths_survive_being_written_and_read(thousandths: int) -> None:
    value = Decimal(thousandths) / 1000
    assert quantity(format_quantity(value)) == value


def test_whole_powers_are_written_shortest() -> None:
    assert [format_quantity(Decimal(n), binary=True) for n in (0, 1000, 1024, 48 * 1024, 3 * 2**30)] == [
        "0",
        "1000",
        "1Ki",
        "48Ki",
        "3Gi",
    ]


def test_a_key_reads_as_kubectl_writes_it() -> None:
    assert (str(Key("shop", "web")), str(Key("", "edge"))) == ("shop/web", "edge")


def test_metadata_is_typed_and_the_rest_kept() -> None:
    found = pod(labels={"app": "web"}, deletionTimestamp="2026-05-01T12:00:00Z", status={"phase": "Running"})
    assert found.key == Key("shop", "web")
    assert (found.uid, found.version, found.leaving) == ("u1", 1, True)
    assert found.meta.labels == {"app": "web"}
    assert found.status() == {"phase": "Running"}


def test_a_bookmark_of_an_old_server_has_no_creation_time() -> None:
    # Up to 1.33 or so this is exactly what a bookmark looks like.
    line = b'{"type":"BOOKMARK","object":{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"12746",'
    line += b'"creationTimestamp":null},"spec":{"containers":null},"status":{}}}'
    event = parse_event(line)
    assert (event.type, parse_object(event.raw).version) == ("BOOKMARK", 12746)


@given(json_values, json_values)
def test_spec_and_status_come_back_as_they_were(spec: Any, status: Any) -> None:
    found = from_dict({**raw_pod(), "spec": {"kept": spec}, "status": {"kept": status}})
    assert (found.spec(), found.status()) == ({"kept": spec}, {"kept": status})


def test_each_reader_gets_a_dict_of_its_own() -> None:
    found = pod()
    found.spec()["containers"][0]["image"] = "changed"
    assert found.spec()["containers"][0]["image"] == "app:1"


@pytest.mark.parametrize("part", ["null", "[]", "3", '"text"'])
def test_a_spec_that_is_no_object_reads_as_an_empty_one(part: str) -> None:
    assert parse_object(f'{{"metadata":{{"name":"a"}},"spec":{part}}}'.encode()).spec() == {}


def test_an_object_without_spec_and_status_reads_as_empty() -> None:
    found = parse_object(b'{"metadata":{"name":"a"}}')
    assert (found.spec(), found.status(), found.version, found.leaving) == ({}, {}, 0, False)


@pytest.mark.parametrize(("text", "number"), [("7", 7), ("", 0), ("x7", 0), ("²", 0), ("-1", 0), ("7.0", 0)])
def test_a_version_that_is_no_number_is_nought(text: str, number: int) -> None:
    assert from_dict({"metadata": {"name": "a", "resourceVersion": text}}).version == number


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"3",
        b'"a"',
        b"{}",
        b'{"metadata":[]}',
        b'{"metadata":{"labels":[]}}',
        b'{"metadata":{"uid":1}}',
        b'{"metadata":{"labels":{"a":1}}}',
        b'{"metadata":{"name":"\xff"}}',
    ],
)
def test_what_is_no_object_is_a_decode_error(data: bytes) -> None:
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
        parse_object(data)


@given(st.binary(max_size=60))
def test_any_bytes_are_an_object_or_a_decode_error(data: bytes) -> None:
    with suppress(msgspec.DecodeError, UnicodeDecodeError):  # and nothing else
        assert parse_object(data).key.name == parse_object(data).meta.name


def test_a_page_tells_its_version_and_what_follows() -> None:
    page = b'{"metadata":{"resourceVersion":"9","continue":"more"},"items":[{"metadata":{"name":"a"}}]}'
    items, version, more = parse_list(page)
    assert ([item.key for item in items], version, more) == ([Key("", "a")], "9", "more")


@pytest.mark.parametrize("items", [b"null", b"[]"])
def test_an_empty_page_has_no_items(items: bytes) -> None:
    assert parse_list(b'{"metadata":{"resourceVersion":"9"},"items":' + items + b"}") == ([], "9", "")


def test_same_ignores_the_version_and_what_nobody_reads() -> None:
    assert pod(version=1).same(pod(version=2, managedFields=[{"manager": "x"}]))


@pytest.mark.parametrize(
    "other",
    [
        pod(uid="u2"),
        pod(generation=2),
        pod(labels={"a": "b"}),
        pod(annotations={"a": "b"}),
        pod(finalizers=["a/b"]),
        pod(deletionTimestamp="2026-05-01T12:00:00Z"),
        pod(spec={"priority": 1}),
        pod(status={"phase": "Running"}),
    ],
)
def test_same_sees_every_change_that_matters(other: Any) -> None:
    assert not pod().same(other)


def test_stamps_are_in_utc_with_whole_seconds_or_microseconds() -> None:
    moment = datetime(2026, 5, 1, 14, 0, 0, 250, tzinfo=timezone(timedelta(hours=2)))
    assert timestamp(moment) == "2026-05-01T12:00:00Z"
    assert micro_timestamp(moment.astimezone(UTC)) == "2026-05-01T12:00:00.000250Z"
