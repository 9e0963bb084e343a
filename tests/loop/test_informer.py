"""runtime.informer: what is followed is in the store, and handlers hear of each change once and in order."""

import asyncio

import pytest

from tests.apiserver import Answer, Hang, Request, answer, failure, line, soon, stream, talking
from tests.builders import pod, raw_pod
from vnode.kube.client import PODS, Client
from vnode.kube.objects import Key, Object
from vnode.kube.watch import Source
from vnode.runtime import informer as module
from vnode.runtime.informer import Informer
from vnode.runtime.store import Store

pytestmark = pytest.mark.looptime


def listed(*names: str, version: int) -> Answer:
    items = [raw_pod(name, version=1) for name in names]
    return answer({"metadata": {"resourceVersion": str(version)}, "items": items})


class Heard:
    """A handler that notes the changes it is told of."""

    def __init__(self, informer: Informer) -> None:
        self.changes: list[tuple[str, int | None, int | None]] = []
        self.synced_before = False
        self._informer = informer
        informer.on_change(self._changed)

    def _changed(self, key: Key, before: Object | None, now: Object | None) -> None:
        self.synced_before |= self._informer.is_synced
        self.changes.append((key.name, before.version if before else None, now.version if now else None))


def informer(client: Client, store: Store | None = None) -> Informer:
    return Informer("pods", Source(client, PODS), store)


async def test_the_first_list_is_told_before_the_informer_is_synced() -> None:
    async with talking([listed("a", "b", version=10)]) as (client, _), asyncio.TaskGroup() as group:
        pods = informer(client)
        heard = Heard(pods)
        assert not pods.is_synced
        task = group.create_task(pods.run())
        await pods.synced()
        assert heard.changes == [("a", None, 1), ("b", None, 1)]
        assert not heard.synced_before
        assert len(pods.store) == 2
        task.cancel()


async def test_what_is_learnt_of_metadata_is_cut_like_what_is_followed() -> None:
    async with talking([]) as (client, _):
        lean = Informer("pods", Source(client, PODS, metadata_only=True))
        lean.learn(pod("a", version=3, annotations={"vnode.dev/origin-uid": "u", "other": "x" * 1000}))
    (kept,) = lean.store
    assert kept.meta.annotations == {"vnode.dev/origin-uid": "u"}
    assert (kept.raw_spec, kept.raw_status) == (b"", b"")


async def test_an_empty_list_is_synced_too() -> None:
    async with talking([listed(version=10)]) as (client, _), asyncio.TaskGroup() as group:
        pods = informer(client)
        task = group.create_task(pods.run())
        async with asyncio.timeout(5):
            await pods.synced()
        task.cancel()


async def test_a_server_that_is_away_is_waited_for() -> None:
    script = [failure(503), failure(403), listed("a", version=10)]
    async with talking(script) as (client, _), asyncio.TaskGroup() as group:
        pods = informer(client)
        task = group.create_task(pods.run())
        await asyncio.sleep(0.05)
        assert not pods.is_synced
        await pods.synced()
        task.cancel()


async def test_changes_are_told_in_their_order_and_what_went_in_a_gap_too() -> None:
    changed = line("ADDED", raw_pod("c", version=11)) + line("MODIFIED", raw_pod("a", version=12, labels={"x": "y"}))
    gone = line("DELETED", raw_pod("c", version=13))
    expired = line("ERROR", {"kind": "Status", "code": 410})
    script = [listed("a", "b", version=10), stream(changed + gone + expired), listed("b", version=20), stream(Hang)]
    async with talking(script) as (client, server), asyncio.TaskGroup() as group:
        pods = informer(client)
        heard = Heard(pods)
        task = group.create_task(pods.run())
        await soon(lambda: len(server.requests) == 4)
        assert heard.changes[2:] == [("c", None, 11), ("a", 1, 12), ("c", 13, None), ("a", 12, None)]
        assert [item.meta.name for item in pods.store] == ["b"]
        task.cancel()


async def test_what_a_writer_has_learnt_is_told_at_once_and_not_again_by_the_watch() -> None:
    script = [listed(version=10), stream(1.0, line("ADDED", raw_pod("a", version=11)), Hang)]
    async with talking(script) as (client, _), asyncio.TaskGroup() as group:
        pods = informer(client)
        heard = Heard(pods)
        task = group.create_task(pods.run())
        await pods.synced()
        pods.learn(pod("a", version=11))
        assert heard.changes == [("a", None, 11)]
        await asyncio.sleep(10)
        assert heard.changes == [("a", None, 11)]
        task.cancel()


async def test_a_long_list_lets_others_run_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLICE", 10)
    turns = [0]

    async def others() -> None:
        while True:
            turns[0] += 1
            await asyncio.sleep(0)

    seen: list[int] = []
    async with (
        talking([listed(*[f"p{n}" for n in range(50)], version=10)]) as (client, _),
        asyncio.TaskGroup() as group,
    ):
        pods = informer(client)
        pods.on_change(lambda *_: seen.append(turns[0]))
        tasks = [group.create_task(pods.run()), group.create_task(others())]
        await pods.synced()
        for task in tasks:
            task.cancel()
    assert len(seen) == 50
    assert len(set(seen)) == 5


async def test_a_bug_in_a_handler_ends_the_informer() -> None:
    def broken(*_: object) -> None:
        raise KeyError("bug")

    async with talking([listed("a", version=10)]) as (client, _):
        pods = informer(client)
        pods.on_change(broken)
        with pytest.raises(ExceptionGroup) as caught:
            await pods.run()
    assert caught.group_contains(KeyError)


async def test_a_refresh_lists_anew_without_waiting_for_the_stream() -> None:
    script = [listed("a", version=10), stream(Hang), listed("b", version=20), stream(Hang)]
    async with talking(script) as (client, server), asyncio.TaskGroup() as group:
        pods = informer(client)
        heard = Heard(pods)
        lists: list[bool] = []
        pods.on_listed(lambda: lists.append(pods.current))
        task = group.create_task(pods.run())
        await soon(lambda: len(server.requests) == 2)
        assert pods.current
        pods.doubt()
        assert not pods.current
        pods.refresh()
        await soon(lambda: len(server.requests) == 4)
        assert heard.changes == [("a", None, 1), ("b", None, 1), ("a", 1, None)]
        assert (pods.current, lists) == (True, [True, True])
        task.cancel()


async def test_a_refresh_in_the_midst_of_a_list_leaves_nothing_untold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLICE", 2)
    names = [f"p{number}" for number in range(9)]
    script = [listed(*names, version=10), listed(*names, version=10), stream(Hang)]
    async with talking(script) as (client, server), asyncio.TaskGroup() as group:
        pods = informer(client)
        heard = Heard(pods)
        pods.on_change(lambda key, *_: pods.refresh() if key.name == "p3" else None)
        task = group.create_task(pods.run())
        await soon(lambda: len(server.requests) == 3)
        assert sorted(name for name, _, _ in heard.changes) == names
        task.cancel()


async def test_a_handler_may_be_taken_away() -> None:
    async with talking([]) as (client, _):
        pods = informer(client)
        seen: list[str] = []
        forget = pods.on_change(lambda key, *_: seen.append(key.name))
        pods.learn(pod("a"))
        forget()
        pods.learn(pod("b"))
        assert seen == ["a"]


async def test_several_namespaces_are_followed_apart_and_synced_when_all_are_listed() -> None:
    def reply(request: Request) -> Answer:
        namespace = request.path.split("/")[4]
        if "watch" in request.params:
            return stream(Hang)
        items = [raw_pod("web", namespace, uid=namespace)]
        return answer({"metadata": {"resourceVersion": "5"}, "items": items}, delay_s={"a": 0.0, "b": 1.0}[namespace])

    async with talking(reply) as (client, _), asyncio.TaskGroup() as group:
        pods = Informer("pods", Source(client, PODS), namespaces=("a", "b"))
        task = group.create_task(pods.run())
        await soon(lambda: len(pods.store) == 1)
        assert not pods.is_synced
        await pods.synced()
        assert {item.key for item in pods.store} == {Key("a", "web"), Key("b", "web")}
        assert pods.current
        pods.refresh()
        assert not pods.current
        await soon(lambda: pods.current)
        task.cancel()
