"""TCP keepalive: the kernel finds a dead end within two minutes, also where nothing is said for hours.

For followed logs and exec sessions, which no idle limit may end. Used by `kube.client` and by the kubelet port.
"""

import socket

import aiohttp


def keep_alive(connection: socket.socket) -> None:
    """Switch it on; what a listening socket accepts inherits it."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)


def kept_alive(address: aiohttp.AddrInfoType) -> socket.socket:
    """A socket for one address, for aiohttp's connector."""
    family, kind, protocol, _, _ = address
    connection = socket.socket(family, kind, protocol)
    keep_alive(connection)
    return connection
