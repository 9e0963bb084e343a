"""peers.renewal: when the next token is asked for, where it goes, and what is said when that cannot be."""

import asyncio
import base64
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.core.test_token import CONFIG, bearer
from tests.loop.wire import Answer, Wire, at_work
from vnode.kube.credentials import Connection
from vnode.kube.objects import Key
from vnode.peers.renewal import LOOK_EVERY_S, RETRY_S, NotKept, TokenRenewal, in_file, in_secret

pytestmark = pytest.mark.looptime
START = datetime(2026, 5, 1, tzinfo=UTC)
LIFE = timedelta(days=30)
ACCOUNT = "/api/v1/namespaces/vnode-system/serviceaccounts/vnode/token"


def now() -> datetime:
    return START + timedelta(seconds=asyncio.get_running_loop().time())


def issued(life: timedelta = LIFE) -> str:
    stamp = int(now().timestamp())
    claims = {"sub": "system:serviceaccount:vnode-system:vnode", "iat": stamp}
    return bearer(**claims, exp=stamp + int(life.total_seconds())).removeprefix("Bearer ")


class Peer(Wire):
    """An apiserver that makes tokens, and the file our credential is in."""

    def __init__(self) -> None:
        super().__init__(self._answer)
        self.asked: list[tuple[str, datetime, int]] = []
        self.file = self.used = issued()
        self.status = 201
        self.problem = ""
        self.answer: Any = None

    async def _answer(self, method: str, path: str, body: Any) -> Answer:
        life_s = body["spec"]["expirationSeconds"]
        self.asked.append((f"{method} {path}", now(), life_s))
        token = issued(timedelta(seconds=life_s))
        made = {"status": {"token": token}, "message": "no"}
        return Answer(made if self.answer is None else self.answer, self.status)

    async def current(self) -> Connection:
        return Connection("https://wire", None, {"Authorization": f"Bearer {self.used}"} if self.used else {})

    def rejected(self, connection: Connection) -> None:
        self.used = self.file

    async def keep(self, new: str) -> None:
        if self.problem:
            raise NotKept(self.problem)
        self.file = new


async def test_a_token_is_renewed_half_way_for_as_long_again_and_used_from_then_on() -> None:
    peer = Peer()
    first = peer.used
    async with at_work(TokenRenewal(peer, peer, peer.keep, now).run()):
        await asyncio.sleep(LIFE.total_seconds() / 2 - 60)
        assert not peer.asked
        await asyncio.sleep(3600)
        assert [(what, life_s) for what, _, life_s in peer.asked] == [(f"POST {ACCOUNT}", 30 * 86400)]
        assert peer.used == peer.file != first
        await asyncio.sleep(LIFE.total_seconds() * 2)
    gaps = [after[1] - before[1] for before, after in zip(peer.asked, peer.asked[1:], strict=False)]
    assert len(gaps) == 4
    assert all(LIFE / 2 <= gap <= LIFE / 2 + timedelta(hours=1) for gap in gaps)


@pytest.mark.parametrize("used", ["", "opaque"])
async def test_a_credential_of_another_kind_is_left_to_who_hands_it_out_until_it_is_a_token(used: str) -> None:
    peer = Peer()
    token, peer.used = peer.used, used
    async with at_work(TokenRenewal(peer, peer, peer.keep, now).run()):
        await asyncio.sleep(LIFE.total_seconds() / 2 + 1)
        assert not peer.asked
        peer.used = token
        await asyncio.sleep(LOOK_EVERY_S)
        assert len(peer.asked) == 1
        assert peer.used == peer.file != token


@pytest.mark.parametrize("answer", [{}, {"status": {}}, {"status": None}, {"status": {"token": 3}}, [], b"\xff"])
async def test_an_answer_without_a_token_is_said_and_asked_for_again(
    answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    peer = Peer()
    peer.answer = answer
    async with at_work(TokenRenewal(peer, peer, peer.keep, now).run()):
        await asyncio.sleep(LIFE.total_seconds() / 2 + LOOK_EVERY_S)
        assert [record.message for record in caplog.records] == ["credential cannot be renewed"]
        peer.answer = None
        await asyncio.sleep(RETRY_S)
        assert peer.used == peer.file


@pytest.mark.parametrize(("status", "problem"), [(403, ""), (201, "edge.conf: Read-only file system")])
async def test_what_hinders_a_renewal_is_said_once_and_tried_again(
    status: int, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    peer = Peer()
    peer.status, peer.problem = status, problem
    async with at_work(TokenRenewal(peer, peer, peer.keep, now).run()):
        await asyncio.sleep(LIFE.total_seconds() / 2 + 3600 + 2 * RETRY_S)
        assert len(peer.asked) >= 3
        told = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert [record.message for record in told] == ["credential cannot be renewed"]
        peer.status, peer.problem = 201, ""
        await asyncio.sleep(RETRY_S + 1)
        assert peer.used == peer.file
        count = len(peer.asked)
        await asyncio.sleep(86400)
        assert len(peer.asked) == count


@pytest.mark.parametrize(("context", "kept"), [("edge", True), ("other", False)])
async def test_a_secret_gets_the_token_if_nobody_has_changed_it_meanwhile(context: str, kept: bool) -> None:
    text, patches = yaml.safe_dump(CONFIG), []
    meta = {"uid": "u1", "resourceVersion": "7", "name": "edge"}

    async def answer(method: str, path: str, body: Any) -> Answer:
        assert path == "/api/v1/namespaces/vnode-system/secrets/edge"
        if method == "PATCH":
            patches.append(body)
        return Answer({"metadata": meta, "data": {"kubeconfig": base64.b64encode(text.encode()).decode(), "x": "eA=="}})

    keep = in_secret(Wire(answer), Key("vnode-system", "edge"), "kubeconfig", context)
    if not kept:
        with pytest.raises(NotKept, match="holds no token"):
            await keep("new")
        return
    await keep("new")
    (patch,) = patches
    assert patch["metadata"] == {"uid": "u1", "resourceVersion": "7"}
    (changed,) = patch["data"].values()
    assert yaml.safe_load(base64.b64decode(changed))["users"][0]["user"] == {"token": "new"}


NO_KUBECONFIGS = [b"{", b"\xff", b"[" * 500, b"d: 2024-13-40", b"s: !!bool maybe"]


@pytest.mark.parametrize("data", [*(base64.b64encode(text).decode() for text in NO_KUBECONFIGS), "a", "\u00e9"])
async def test_a_secret_that_was_edited_to_no_kubeconfig_gets_no_token(data: str) -> None:
    async def answer(method: str, *_: Any) -> Answer:
        assert method == "GET"
        return Answer({"metadata": {"uid": "u1", "resourceVersion": "7"}, "data": {"kubeconfig": data}})

    with pytest.raises(NotKept, match=r"^Secret vnode-system/edge holds no "):
        await in_secret(Wire(answer), Key("vnode-system", "edge"), "kubeconfig", "edge")("new")


@pytest.mark.parametrize("content", NO_KUBECONFIGS)
async def test_a_file_that_was_edited_to_no_kubeconfig_gets_no_token(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "edge.conf"
    path.write_bytes(content)
    with pytest.raises(NotKept, match="holds no "):
        await in_file(str(path), "edge")("new")
    assert path.read_bytes() == content


def test_a_kubeconfig_gets_the_token_in_one_step_and_stays_private(tmp_path: Path) -> None:
    path = tmp_path / "edge.conf"
    path.write_text(yaml.safe_dump(CONFIG))
    asyncio.run(in_file(str(path), "")("new"))
    assert yaml.safe_load(path.read_text())["users"][0]["user"] == {"token": "new"}
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["edge.conf"]


async def test_a_file_that_cannot_hold_it_says_so(tmp_path: Path) -> None:
    path = tmp_path / "edge.conf"
    path.write_text(yaml.safe_dump(CONFIG))
    with pytest.raises(NotKept, match="holds no token"):
        await in_file(str(path), "other")("new")
    with pytest.raises(NotKept, match="No such file"):
        await in_file(str(tmp_path / "absent"), "")("new")
