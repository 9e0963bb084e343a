"""A process without a free file descriptor: what needs one is told to be unavailable, and works again afterwards."""

import asyncio
import contextlib
import os
import resource
from collections.abc import Iterator
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path

import pytest

from tests.apiserver import answer, talking
from tests.builders import NOW
from vnode import cli
from vnode.errors import Unavailable
from vnode.kube.client import PODS
from vnode.kube.credentials import from_kubeconfig
from vnode.kube.objects import Key
from vnode.kube.watch import Backoff, Event, Listed, Source, follow


@contextlib.contextmanager
def limited(soft: int) -> Iterator[None]:
    """The soft limit is `soft` for the block."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextlib.contextmanager
def exhausted() -> Iterator[None]:
    """There is no free descriptor during the block."""
    taken: list[int] = []
    with limited(max(map(int, os.listdir("/proc/self/fd"))) + 1):
        try:
            with contextlib.suppress(OSError):
                while True:
                    taken.append(os.open(os.devnull, os.O_RDONLY))
            yield
        finally:
            for descriptor in taken:
                os.close(descriptor)


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with limited(256):
        cli._raise_descriptor_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)


async def test_a_request_is_unavailable_and_the_next_one_works() -> None:
    async with talking([answer({"n": 1})]) as (client, _):
        with exhausted(), pytest.raises(Unavailable, match="Too many open files"):
            await client.get(PODS, Key("shop", "web"))
        assert await client.get(PODS, Key("shop", "web"))


async def test_following_waits_it_out() -> None:
    async with talking([answer({"metadata": {"resourceVersion": "7"}, "items": []})]) as (client, _):
        events = follow(Source(client, PODS), Backoff())
        async with aclosing(events):  # type: ignore[type-var]
            first: asyncio.Future[Event] = asyncio.ensure_future(anext(events))
            with exhausted():
                await asyncio.sleep(0.1)
                assert not first.done()
            async with asyncio.timeout(5):
                assert await first == Listed([], 7)


async def test_a_kubeconfig_is_unavailable_and_a_connection_that_works_is_kept(tmp_path: Path) -> None:
    config = tmp_path / "config"
    (tmp_path / "token").write_text("sesame")
    config.write_text(
        "{current-context: it, clusters: [{name: it, cluster: {server: 'http://10.0.0.1'}}], contexts: [{name: it,"
        f" context: {{cluster: it, user: it}}}}], users: [{{name: it, user: {{tokenFile: {tmp_path}/token}}}}]}}"
    )
    moment = [NOW]
    credentials = from_kubeconfig(str(config), now=lambda: moment[0])
    with exhausted(), pytest.raises(Unavailable, match="Too many open files"):
        await credentials.current()
    moment[0] += timedelta(seconds=10)
    connection = await credentials.current()
    moment[0] += timedelta(hours=1)
    with exhausted():
        assert await credentials.current() is connection
