"""Two connections made one: bytes copied both ways with backpressure until either end closes.

No queues and no task per chunk: one transport's full buffer pauses the other's reading. There is no half-close, since
TLS has none and SPDY and WebSocket carry their own end of stream. Plain `asyncio.Protocol` on purpose: with
`BufferedProtocol` over TLS asyncio loses what arrives just before the end. Called by `streams` only.
"""

import asyncio
import contextlib
from typing import Final

MAX_HEAD: Final = 64 * 2**10
BUFFER: Final = 256 * 2**10
STALLED_S: Final = 60.0  # a reader that took nothing of the last bytes for so long is given up
LOOK_EVERY_S: Final = 0.05


def cut(transport: asyncio.Transport) -> None:
    """End a connection at once, without waiting for the other end's goodbye.

    CPython before 3.11.4 (Debian 12 has 3.11.2) cannot abort a TLS transport that was closed twice: that one is on its
    way out already.
    """
    with contextlib.suppress(AttributeError):
        transport.abort()


class Leg(asyncio.Protocol):
    """One end. Until it is `joined` it gathers an HTTP head and stops reading behind it."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport | None = None
        self.head: asyncio.Future[bytes] = loop.create_future()
        self.lost = asyncio.Event()
        self.ended = asyncio.Event()  # once joined: either of the two is lost
        self._came = asyncio.Event()
        self.rest = b""
        self._other: Leg | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport; also called by hand where a connection is taken over."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=BUFFER)

    def join(self, other: "Leg") -> None:
        """Send `other` what comes from here, beginning with what came behind the head."""
        assert self.transport is not None
        self._other = other
        other.ended = self.ended
        if self.lost.is_set():
            self.ended.set()
        other.write(self.rest)
        self.rest = b""
        self.transport.resume_reading()

    def write(self, data: bytes) -> None:
        """Send, unless the connection is ending."""
        if data and self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        if self._other is not None:
            self._other.write(data)
            return
        self.rest += data
        self._came.set()
        if self.head.done():
            return
        head, mark, rest = self.rest.partition(b"\r\n\r\n")
        if mark:
            assert self.transport is not None
            self.transport.pause_reading()
            self.rest = rest
            self.head.set_result(head + mark)
        elif len(self.rest) > MAX_HEAD:
            self.head.set_exception(ConnectionError("the head of the answer is too long"))

    async def more(self) -> None:
        """Wait until there is more in `rest`, or no more to come; for who reads here instead of joining."""
        self._came.clear()
        if not self.lost.is_set():
            await self._came.wait()

    def pause_writing(self) -> None:
        if self._other is not None and self._other.transport is not None:
            self._other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self._other is not None and self._other.transport is not None:
            self._other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()
        self.ended.set()
        self._came.set()
        if not self.head.done():
            self.head.set_exception(exc or ConnectionError("the connection ended before an answer"))

    async def finish(self) -> None:
        """Close once everything written is on its way; give up when the other end takes nothing any more."""
        transport = self.transport
        assert transport is not None
        loop = asyncio.get_running_loop()
        left, since = transport.get_write_buffer_size(), loop.time()
        while left and not self.lost.is_set() and loop.time() - since < STALLED_S:
            await asyncio.sleep(LOOK_EVERY_S)
            if (now_left := transport.get_write_buffer_size()) < left:
                since = loop.time()
            left = now_left
        transport.close()
        # Under TLS some of it is still below, behind what the buffer's size tells; asyncio ends this wait itself.
        await self.lost.wait()

    def abort(self) -> None:
        """End at once, whatever is unsent."""
        self.head.cancel()
        if self.transport is not None:
            cut(self.transport)


async def splice(one: Leg, other: Leg) -> None:
    """Copy both ways until either end is lost and the other has got all of it. The caller aborts both at last."""
    one.join(other)
    other.join(one)
    await one.ended.wait()
    for leg in (one, other):
        if not leg.lost.is_set():
            await leg.finish()
