"""The Secrets of Peers in virtual time: each is followed by itself, and only those that are wanted."""

import asyncio
import base64
from collections import Counter
from typing import Any

import pytest

from tests.loop.wire import Answer, Wire, at_work
from vnode.peers.secrets import Secrets

pytestmark = pytest.mark.looptime

PLACE = "/api/v1/namespaces/vnode/secrets"


class Home:
    """An apiserver with Secrets, each of which can be changed; `watch` is the one stream of all watches."""

    def __init__(self, **texts: str) -> None:
        self.texts = texts
        self.code = 200
        self.asked: Counter[str] = Counter()
        self.watches: list[asyncio.Queue[Any]] = []

    async def answer(self, method: str, path: str, _: Any) -> Answer:
        self.asked[path] += 1
        if self.code != 200:
            return Answer({"kind": "Status", "message": "secrets is forbidden"}, self.code)
        if path == f"{PLACE}&watch":
            self.watches.append(asyncio.Queue())
            return Answer(more=self.watches[-1])
        if path == PLACE:
            return Answer({"metadata": {"resourceVersion": "1"}, "items": []})
        text = self.texts.get(path.removeprefix(f"{PLACE}/"))
        if text is None:
            return Answer({"kind": "Status", "message": "not found"}, 404)
        data = {"kubeconfig": base64.b64encode(text.encode()).decode(), "binary": base64.b64encode(b"\xff").decode()}
        return Answer({"data": data})

    def change(self, name: str, text: str) -> None:
        self.texts[name] = text
        event = {"type": "MODIFIED", "object": {"metadata": {"name": name, "resourceVersion": "2"}}}
        for watch in self.watches:
            watch.put_nowait(event)


def followed(home: Home) -> tuple[Secrets, list[int]]:
    told: list[int] = []
    return Secrets(Wire(home.answer), "vnode", lambda: told.append(1)), told


async def test_a_secret_is_read_again_when_it_changes_and_told_only_when_it_is_another() -> None:
    home = Home(edge="one")
    secrets, told = followed(home)
    async with at_work(secrets.run()):
        await asyncio.sleep(0)
        secrets.follow(["edge"])
        await asyncio.sleep(1)
        assert secrets.found == {"edge": {"kubeconfig": "one"}}  # what is no text is left out
        home.change("edge", "two")
        await asyncio.sleep(1)
        assert secrets.found == {"edge": {"kubeconfig": "two"}}
        home.change("edge", "two")
        await asyncio.sleep(1)
    assert len(told) == 2
    assert set(home.asked) == {PLACE, f"{PLACE}&watch", f"{PLACE}/edge"}


async def test_only_wanted_ones_are_followed_and_one_that_is_not_there_says_so() -> None:
    home = Home(edge="one")
    secrets, _ = followed(home)
    async with at_work(secrets.run()):
        await asyncio.sleep(0)
        secrets.follow(["edge", "none"])
        await asyncio.sleep(1)
        assert secrets.found["none"] == "there is no such Secret in vnode"
        secrets.follow(["none"])
        await asyncio.sleep(1)
        assert set(secrets.found) == {"none"}
        before = home.asked[f"{PLACE}/edge"]
        home.change("edge", "two")
        await asyncio.sleep(1)
        assert home.asked[f"{PLACE}/edge"] == before


async def test_a_right_that_is_missing_is_told_and_found_out_when_it_is_given() -> None:
    home = Home(edge="one")
    home.code = 403
    secrets, _ = followed(home)
    async with at_work(secrets.run()):
        await asyncio.sleep(0)
        secrets.follow(["edge"])
        await asyncio.sleep(1)
        assert secrets.found == {"edge": "secrets is forbidden"}
        home.code = 200
        await asyncio.sleep(20)
        assert secrets.found == {"edge": {"kubeconfig": "one"}}
