"""exec sessions and logs as a program has them, without kubectl's own time: one `Side` each for home and the peer."""

import asyncio
from typing import Final
from urllib.parse import urlencode

import aiohttp
from yarl import URL

from vnode.devcluster.controlplane import ControlPlane
from vnode.kube.client import PODS
from vnode.kube.credentials import Connection, from_kubeconfig
from vnode.kube.objects import Key

# The apiserver's channel numbers, the first byte of each message (v5.channel.k8s.io).
_STDIN: Final = b"\0"
_STDOUT: Final = 1

ANSWER_LIMIT_S: Final = 60.0

Session = aiohttp.ClientWebSocketResponse


class Side:
    """One Pod as one cluster's apiserver serves it."""

    def __init__(self, plane: ControlPlane, namespace: str, pod: str) -> None:
        self.plane = plane
        self.namespace = namespace
        self.pod = pod
        self._credentials = from_kubeconfig(str(plane.kubeconfig))
        self._http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def close(self) -> None:
        """End every session and connection."""
        await self._http.close()

    async def execute(self, *command: str) -> Session:
        """A session of `command`, its input and output open, once the apiserver has switched to it."""
        params = [("stdin", "true"), ("stdout", "true"), *(("command", part) for part in command)]
        url, connection = await self._place("exec", params)
        async with asyncio.timeout(ANSWER_LIMIT_S):
            return await self._http.ws_connect(url, ssl=connection.tls or True, protocols=["v5.channel.k8s.io"])

    async def read_log(self) -> int:
        """The size of the whole log, having read it."""
        url, connection = await self._place("log", [])
        size = 0
        async with self._http.get(url, ssl=connection.tls or True, raise_for_status=True) as response:
            async for chunk in response.content.iter_any():
                size += len(chunk)
        return size

    async def _place(self, subresource: str, params: list[tuple[str, str]]) -> tuple[URL, Connection]:
        connection = await self._credentials.current()
        path = PODS.path(Key(self.namespace, self.pod), subresource)
        return URL(f"{connection.server}{path}?{urlencode(params)}", encoded=True), connection


async def echo(session: Session, data: bytes) -> None:
    """Send `data` to a session of `cat` and return when all of it is back."""
    await session.send_bytes(_STDIN + data)
    left = len(data)
    async with asyncio.timeout(ANSWER_LIMIT_S):
        while left:
            message = await session.receive_bytes()
            if message[0] == _STDOUT:
                left -= len(message) - 1
