"""The connections to one apiserver, in generations that can be retired as a whole.

A link that was away leaves connections that are dead and do not know it: whoever kept their state (a NAT, a firewall)
has forgotten it. Each of them would cost the request that is given it its whole limit. Used by `kube.client` alone.
"""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import aiohttp
from yarl import URL

from vnode.kube.credentials import Connection
from vnode.kube.keepalive import kept_alive
from vnode.names import USER_AGENT

CONNECT_LIMIT_S: Final = 15.0


@dataclass(eq=False, slots=True)
class Generation:
    """Connections that are used again and again; `users` counts the requests and streams under way."""

    session: aiohttp.ClientSession
    users: int = 0

    async def send(
        self,
        method: str,
        connection: Connection,
        url: URL,
        accept: str,
        idle_s: float | None,
        data: bytes | None = None,
        content_type: str = "",
    ) -> aiohttp.ClientResponse:
        """The head of the answer. Raises aiohttp's errors and `OSError`."""
        headers = {"Accept": accept, **connection.headers} | ({"Content-Type": content_type} if data else {})
        try:
            return await self.session.request(
                method,
                url,
                data=data,
                headers=headers,
                ssl=connection.tls or False,
                server_hostname=connection.server_name,
                proxy=connection.proxy,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_LIMIT_S, sock_read=idle_s),
            )
        except (RuntimeError, UnicodeError) as error:
            # The resolver's thread cannot be started (there are too many processes), or the host's name is none.
            raise OSError(str(error)) from error


class Pool:
    """Opens nothing until the first request."""

    def __init__(self) -> None:
        self._newest: Generation | None = None

    @contextlib.asynccontextmanager
    async def use(self) -> AsyncIterator[Generation]:
        """The newest generation, for one request or stream."""
        if self._newest is None:
            self._newest = Generation(_session())
        generation = self._newest
        generation.users += 1
        try:
            yield generation
        finally:
            generation.users -= 1
            if generation is not self._newest and not generation.users:
                await generation.session.close()

    async def retire(self, generation: Generation | None = None) -> None:
        """Give the connections of `generation` (None: the newest) to nobody any more; what is under way goes on."""
        newest = self._newest
        if newest is None or (generation is not None and generation is not newest):
            return
        self._newest = None
        if not newest.users:
            await newest.session.close()

    async def close(self) -> None:
        """Close every connection of the newest generation, in use or not."""
        if self._newest is not None:
            newest, self._newest = self._newest, None
            await newest.session.close()


def _session() -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=55, ttl_dns_cache=60, socket_factory=kept_alive)
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": USER_AGENT},
        timeout=aiohttp.ClientTimeout(total=None),
    )
