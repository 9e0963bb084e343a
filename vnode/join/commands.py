"""The commands an administrator runs once a peer or once a namespace: `peer kubeconfig`, `join`, `leave`, `rbac`.

Each says on stderr what it does. `peer kubeconfig --dry-run` and `rbac` without `--apply` print it and do nothing.
"""

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from vnode import roles
from vnode.errors import ConfigError
from vnode.telemetry import log as logs

peer = typer.Typer(name="peer", help="Accounts at the peers.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The peer's name.")]
Home = Annotated[str, typer.Option("--kubeconfig", help="Administrator's, of the home cluster. Default: as kubectl.")]
HomeContext = Annotated[str, typer.Option("--context", help="Context of the home cluster's kubeconfig.")]
Peer = Annotated[str, typer.Option("--peer-kubeconfig", help="Administrator's, of the peer cluster.")]
PeerContext = Annotated[str, typer.Option("--peer-context", help="Context of the peer's kubeconfig.")]
Everywhere = Annotated[bool, typer.Option("--all", help="In all namespaces: vnode makes its own there.")]
Namespaces = Annotated[str, typer.Option("--namespaces", help="In these namespaces only, with nothing cluster-wide.")]
Kubelets = Annotated[bool, typer.Option("--kubelets", help="Usage from the kubelets too (nodes/proxy: a wide right).")]
Server = Annotated[str, typer.Option("--server", help="URL at which vnode reaches the peer. Default: the same.")]
Place = Annotated[str, typer.Option("--namespace", help="vnode's own namespace at home.")]


@peer.command()
def kubeconfig(
    name: Name,
    peer_kubeconfig: Peer = "",
    peer_context: PeerContext = "",
    everywhere: Everywhere = False,
    namespaces: Namespaces = "",
    kubelets: Kubelets = False,
    server: Server = "",
    account_name: Annotated[
        str, typer.Option("--account", help="The account's name; one for each home that shares the peer.")
    ] = roles.ACCOUNT,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write. Default: stdout.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the manifests and make nothing.")] = False,
) -> None:
    """Make an account with the least rights at a peer, and print a kubeconfig for it whose token renews itself.

    Run with the peer administrator's credential. The token ends after 30 days; vnode replaces it in the file half-way.

    \b
    vnode peer kubeconfig edge --all --peer-kubeconfig admin.conf -o edge.conf
    vnode peer kubeconfig edge --namespaces shop,blog --dry-run
    """
    from vnode.join import account

    logs.setup("error")
    items = account.manifests(_scope(everywhere, namespaces), kubelets, account_name)
    if dry_run:
        print(roles.dump(items), end="")
        return
    admin = account.Admin(_paths(peer_kubeconfig), peer_context)
    text = asyncio.run(account.create(name, admin, server, items, _say))
    if output is None:
        print(text, end="")
        return
    output.unlink(missing_ok=True)
    output.touch(mode=0o600)
    output.write_text(text, encoding="utf-8")
    _say(f"wrote {output}")


def join(
    name: Name,
    kubeconfig: Home = "",
    context: HomeContext = "",
    peer_kubeconfig: Peer = "",
    peer_context: PeerContext = "",
    everywhere: Everywhere = False,
    namespaces: Namespaces = "",
    kubelets: Kubelets = False,
    server: Server = "",
    namespace: Place = roles.NAMESPACE,
) -> None:
    """Join a peer in one step: its account and kubeconfig, a Secret with it at home, and the Peer object.

    With --namespaces HOME=REMOTE,… these home namespaces alone may offload, each into the one at the peer.

    \b
    vnode join edge --all --peer-kubeconfig edge-admin.conf
    vnode join edge --namespaces shop=team-a-shop --peer-kubeconfig edge-admin.conf
    """
    from vnode.join import account, objects

    logs.setup("error")
    pairs = objects.pairs(namespaces) if namespaces else {}
    _scope(everywhere, namespaces)
    home, there = account.Admin(_paths(kubeconfig), context), account.Admin(_paths(peer_kubeconfig), peer_context)
    asyncio.run(objects.join(name, namespace, pairs, home, there, server, kubelets, _say))


def leave(
    name: Name,
    kubeconfig: Home = "",
    context: HomeContext = "",
    peer_kubeconfig: Peer = "",
    peer_context: PeerContext = "",
    namespace: Place = roles.NAMESPACE,
    timeout_s: Annotated[float, typer.Option("--timeout", help="Seconds to wait for the drain.")] = 600,
) -> None:
    """Have a joined peer leave: its Peer object is deleted, vnode drains the Node, then the Secret goes.

    With --peer-kubeconfig the account at the peer goes, too.
    """
    from vnode.join import account, objects

    logs.setup("error")
    there = account.Admin(peer_kubeconfig, peer_context) if peer_kubeconfig else None
    home = account.Admin(_paths(kubeconfig), context)
    asyncio.run(objects.leave(name, namespace, home, there, timeout_s, _say))


def rbac(
    namespaces: Annotated[str, typer.Option("--namespaces", help="Home namespaces, separated by commas.")] = "",
    selector: Annotated[str, typer.Option("--selector", "-l", help="Those with these labels, as for kubectl.")] = "",
    nodes: Annotated[
        list[str] | None, typer.Option("--node", help="Serve these virtual Nodes only; repeat it.")
    ] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Apply it at home, and say what was applied.")] = False,
    namespace: Place = roles.NAMESPACE,
    kubeconfig: Home = "",
    context: HomeContext = "",
) -> None:
    """Print the bindings by which vnode may read the Secrets of home namespaces, so that their Pods may bring them.

    \b
    vnode rbac --namespaces shop,blog | kubectl apply -f -
    vnode rbac --selector team=web --apply
    vnode rbac --node edge --apply            vnode then touches no Pod of any other Node
    """
    from vnode.join import account, rights

    logs.setup("error")
    if not (namespaces or selector or nodes):
        raise ConfigError("rbac: expected --namespaces, --selector or --node")
    admin = account.Admin(_paths(kubeconfig), context)
    chosen = _split(namespaces)
    asyncio.run(rights.give(admin, chosen, selector, nodes or [], namespace, _say if apply else None))


def _scope(everywhere: bool, namespaces: str) -> list[str]:
    chosen = _split(namespaces)
    if everywhere == bool(chosen):
        raise ConfigError("expected --all, or --namespaces with at least one name")
    return chosen


def _split(names: str) -> list[str]:
    return [name for name in names.split(",") if name]


def _paths(given: str) -> str:
    """As kubectl finds it: the one given, $KUBECONFIG, or the user's."""
    return given or os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
