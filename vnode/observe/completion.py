"""Names for the shell's completion: peers, virtual Nodes, Pods on them; nothing, in silence, where home does not tell.

Called by the shell through typer, with the words typed so far.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import typer

from vnode import options
from vnode.errors import VnodeError
from vnode.kube.client import Client
from vnode.observe import gather
from vnode.observe.reading import opened, own_namespace
from vnode.telemetry import log as logs

LIMIT_S: Final = 5.0


def peers(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of peers."""
    return _names(ctx, incomplete, gather.peer_names)


def nodes(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of virtual Nodes."""
    return _names(ctx, incomplete, gather.node_names)


def pods(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of Pods, in the namespace that was said, else in the user's own."""

    async def of_namespace(home: Client) -> list[str]:
        return await gather.pod_names(home, ctx.params.get("namespace") or await own_namespace(home))

    return _names(ctx, incomplete, of_namespace)


def _names(ctx: typer.Context, incomplete: str, read: Callable[[Client], Awaitable[list[str]]]) -> list[str]:
    logs.setup("error")

    async def found() -> list[str]:
        credentials = options.home(ctx.params.get("kubeconfig") or "", ctx.params.get("context") or "")
        async with asyncio.timeout(LIMIT_S), opened(credentials, "home") as home:
            return await read(home)

    try:
        return sorted(name for name in asyncio.run(found()) if name.startswith(incomplete))
    except (VnodeError, TimeoutError):
        return []  # a shell has no place for an error
