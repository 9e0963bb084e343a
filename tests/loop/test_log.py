"""telemetry.log: one line a record, facts as JSON, and nothing that a terminal would obey."""

import asyncio
import io
import json
import logging
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from vnode.telemetry import log as module
from vnode.telemetry.log import fields, setup

log = logging.getLogger("vnode.test")


def sink(style: str, level: str = "info") -> io.StringIO:
    stream = io.StringIO()
    setup(level, style, stream)  # type: ignore[arg-type]
    return stream


def entries(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(text) for text in stream.getvalue().splitlines()]


def test_a_record_is_one_line_of_json() -> None:
    stream = sink("json")
    log.info("mirrored", extra={"peer": "edge", "attempt": 3})
    (entry,) = entries(stream)
    assert entry.pop("time").endswith("+00:00")
    assert entry == {"level": "info", "logger": "vnode.test", "message": "mirrored", "peer": "edge", "attempt": 3}


def test_a_traceback_stays_inside_the_line() -> None:
    stream = sink("json")
    try:
        raise ValueError("line one\nline two")
    except ValueError:
        log.exception("bug")
    (entry,) = entries(stream)
    assert "line one\nline two" in entry["traceback"]
    assert entry["level"] == "error"


def test_what_json_does_not_know_is_written_as_text() -> None:
    stream = sink("json")
    log.info("odd", extra={"what": {1}, "error": ValueError("x")})
    assert entries(stream)[0]["what"] == "{1}"


def test_the_level_holds_and_libraries_are_kept_quiet() -> None:
    stream = sink("json", "warning")
    log.info("not this")
    log.warning("this")
    assert [entry["message"] for entry in entries(stream)] == ["this"]
    stream = sink("json", "debug")
    logging.getLogger("aiohttp.access").info("chatter")
    logging.getLogger("asyncio").info("chatter")
    assert entries(stream) == []


def test_context_is_added_inside_its_block_and_a_records_own_facts_win() -> None:
    stream = sink("json")
    with fields(peer="edge", node="edge"):
        with fields(node="other"):
            log.info("one", extra={"peer": "mine"})
        log.info("two")
    log.info("three")
    found = [{key: entry.get(key) for key in ("peer", "node")} for entry in entries(stream)]
    assert found == [{"peer": "mine", "node": "other"}, {"peer": "edge", "node": "edge"}, {"peer": None, "node": None}]


async def test_context_goes_with_the_tasks_started_inside() -> None:
    stream = sink("json")

    async def work(name: str) -> None:
        await asyncio.sleep(0)
        log.info(name)

    async with asyncio.TaskGroup() as group:
        for peer in ("a", "b"):
            with fields(peer=peer):
                group.create_task(work(peer))
    assert [(entry["message"], entry["peer"]) for entry in entries(stream)] == [("a", "a"), ("b", "b")]


def test_for_people_a_record_is_a_short_line() -> None:
    stream = sink("text")
    log.warning("peer away", extra={"peer": "edge", "delay_s": 1.5})
    text = stream.getvalue()
    assert text.endswith(' W peer away peer="edge" delay_s=1.5\n')


def test_without_a_terminal_it_is_json() -> None:
    stream = sink("auto")
    log.info("x")
    assert entries(stream)[0]["message"] == "x"


hostile = st.text(st.sampled_from("\x1b\x07\x00\r\b\x7f\x9b\x85[31mA\n"), max_size=12)


@given(hostile, hostile, st.sampled_from(["text", "json"]))
def test_no_control_character_reaches_the_terminal(fact: str, error: str, style: str) -> None:
    stream = sink(style)
    try:
        raise ValueError(error)
    except ValueError:
        log.exception("bug", extra={"error": fact})
    text = stream.getvalue()
    assert not [letter for letter in text if letter != "\n" and (ord(letter) < 32 or 127 <= ord(letter) < 160)]


def test_a_fact_cannot_forge_another_line() -> None:
    for style in ("json", "text"):
        stream = sink(style)
        log.info("x", extra={"error": 'a\n{"level": "error"}'})
        assert len(stream.getvalue().splitlines()) == 1


def test_the_module_keeps_no_state_but_the_context() -> None:
    assert module._context.get() == {}
