"""What a TLS connection of asyncio's holds while nothing happens on it; `tests.bench streams` measures the sessions."""

import asyncio
import tracemalloc
from contextlib import AsyncExitStack
from datetime import UTC, datetime

from tests.loop.kubelet_port import trusting
from vnode import cli
from vnode.kubelet.certificate import self_signed
from vnode.kubelet.server import server_context


async def test_an_idle_tls_connection_holds_less_than_100_kib_at_each_end() -> None:
    cli._shrink_tls_buffers()
    context = server_context(self_signed("edge", ["127.0.0.1"], datetime.now(UTC)), "")
    trust = trusting()
    async with AsyncExitStack() as stack:

        def keep(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            stack.callback(writer.close)

        server = await asyncio.start_server(keep, "127.0.0.1", 0, ssl=context)
        stack.callback(server.close)
        tracemalloc.start()
        stack.callback(tracemalloc.stop)
        for _ in range(10):
            _, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1], ssl=trust)
            stack.callback(writer.close)
        held, _ = tracemalloc.get_traced_memory()
    assert held < 10 * 2 * 100 * 2**10
