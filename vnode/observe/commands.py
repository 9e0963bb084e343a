"""`vnode status | peers | pods | trace`: parses, reads, shows. Made part of the command line by `cli`."""

import asyncio
import re
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated, Final, TypeVar
from urllib.parse import urlsplit

import msgspec
import typer
from rich.console import Console

from vnode import options
from vnode.config import PeerSpec
from vnode.errors import ConfigError, VnodeError
from vnode.kube.client import Client
from vnode.kube.credentials import Credentials
from vnode.kube.objects import Key, utc_now
from vnode.observe import completion, gather
from vnode.observe.reading import opened, own_namespace
from vnode.observe.render import Following, Format, as_data, show
from vnode.observe.tables import Page, peers_page, pods_page, status_page, trace_page
from vnode.observe.trace import Trace
from vnode.options import Config, HomeContext, Kubeconfig, PeerFlags
from vnode.telemetry import log as logs

WATCH_EVERY_S: Final = 2.0
R = TypeVar("R", bound=msgspec.Struct)

commands = typer.Typer()

Chosen = Annotated[
    list[str] | None,
    typer.Argument(metavar="[PEER]...", help="Only these peers, by name or by Node.", autocompletion=completion.peers),
]
Output = Annotated[Format, typer.Option("--output", "-o", help="table, wide (more columns), json or yaml.")]
Namespace = Annotated[
    str, typer.Option("--namespace", "-n", help="Namespace at home. Default: all for pods, your context's for trace.")
]
Admin = Annotated[
    str,
    typer.Option(
        metavar="http://HOST:PORT", help="vnode's admin port, to read hops from. Default: its Nodes, through home."
    ),
]


@commands.command()
def status(
    peer: Chosen = None,
    output: Output = "table",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on, and show what changes.")] = False,
    admin: Admin = "",
    kubeconfig: Kubeconfig = "",
    context: HomeContext = "",
) -> None:
    """Is all well? Each peer's health, its Pods by state, how long things take to cross, and the last errors.

    Only home is asked. The hops are vnode's own metrics, read through its Nodes (right: get nodes/proxy), which
    apiservers do for addresses other than loopback; else say --admin.

    \b
    vnode status              every peer
    vnode status edge -w      one of them, live
    vnode status -o json      for programs
    """
    logs.setup("error")
    _check_admin(admin)
    wide, home = output == "wide", options.home(kubeconfig, context)
    if not watch:
        report = _asked(home, lambda client: gather.status(client, peer or (), admin))
        _put_out(report, output, lambda report: status_page(report, utc_now(), wide=wide))
        return
    if output in ("json", "yaml"):
        raise ConfigError("--watch: shows tables only; for programs there is `kubectl get --watch`")
    asyncio.run(_follow(home, peer or (), admin, wide))


@commands.command()
def peers(
    peer: Chosen = None,
    output: Output = "table",
    admin: Admin = "",
    kubeconfig: Kubeconfig = "",
    context: HomeContext = "",
) -> None:
    """The peers as nodes of home: version, what is left of them, where their kubelet ports are.

    \b
    vnode peers -o wide
    """
    logs.setup("error")
    _check_admin(admin)
    report = _asked(options.home(kubeconfig, context), lambda client: gather.peers(client, peer or (), admin))
    _put_out(report, output, lambda report: peers_page(report, utc_now(), wide=output == "wide"))


@commands.command()
def pods(
    peer: Chosen = None,
    namespace: Namespace = "",
    output: Output = "table",
    config: Config = None,
    peers_given: PeerFlags = None,
    kubeconfig: Kubeconfig = "",
    context: HomeContext = "",
) -> None:
    """Pods on virtual nodes; with a credential for their peer also where they are there: name, node, IP.

    \b
    vnode pods edge -n shop              as home knows them
    vnode pods --config vnode.yaml       with their places at the peers
    vnode pods --peer edge=edge.conf     the same, for one
    """
    logs.setup("error")
    given = _given(config, peers_given)
    report = _asked(options.home(kubeconfig, context), lambda client: gather.pods(client, peer or (), namespace, given))
    _put_out(report, output, lambda report: pods_page(report, utc_now(), wide=output == "wide"))


@commands.command()
def trace(
    pod: Annotated[str, typer.Argument(metavar="POD", help="The Pod's name at home.", autocompletion=completion.pods)],
    namespace: Namespace = "",
    output: Output = "table",
    config: Config = None,
    peers_given: PeerFlags = None,
    kubeconfig: Kubeconfig = "",
    context: HomeContext = "",
) -> None:
    """The life of one Pod over both clusters, as one timeline: events, conditions, containers, and the hops between.

    Without a credential for the peer it is home's half of it. Of a Pod that is gone, what Events still tell.

    \b
    vnode trace web-7d9f8-x2x1q -n shop --config vnode.yaml
    """
    logs.setup("error")
    given = _given(config, peers_given)

    async def read(client: Client) -> Trace:
        return await gather.life(client, Key(namespace or await own_namespace(client), pod), given)

    _put_out(_asked(options.home(kubeconfig, context), read), output, trace_page)


def _check_admin(admin: str) -> None:
    if not admin:
        return
    try:
        fits = re.fullmatch(r"http://[^/?#]+", admin) and urlsplit(admin).port
    except ValueError:
        fits = None
    if not fits:
        raise ConfigError(f"--admin {admin}: expected http://HOST:PORT")


def _given(config: Path | None, peers: list[str] | None) -> tuple[PeerSpec, ...]:
    """The peers a credential is given for; none has to be."""
    return options.settings(config, peers).peers if config or peers else ()


def _asked(home: Credentials, read: Callable[[Client], Awaitable[R]]) -> R:
    async def asked() -> R:
        async with opened(home, "home") as client:
            return await read(client)

    return asyncio.run(asked())


def _put_out(report: R, form: Format, page: Callable[[R], Page]) -> None:
    if form in ("json", "yaml"):
        sys.stdout.write(as_data(report, form))
    else:
        show(page(report), Console())


async def _follow(home: Credentials, chosen: Sequence[str], admin: str, wide: bool) -> None:
    """Show the status until interrupted. Once it could be read, an error is a note, and the last status stays."""
    async with opened(home, "home") as client:
        report = await gather.status(client, chosen, admin)
        with Following(Console()) as view:
            while True:
                view.show(status_page(report, utc_now(), wide=wide), report)
                await asyncio.sleep(WATCH_EVERY_S)
                try:
                    report = await gather.status(client, chosen, admin)
                except VnodeError as error:
                    report = msgspec.structs.replace(report, notes=[str(error)])
