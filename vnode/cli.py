"""The command line: `vnode run | check | diff | remove | demo`, and `observe`'s. Turns outcomes into exit codes.

Exit codes: 0 done, 1 failed (the reason is on stderr), 2 the command line or the configuration is wrong.
"""

import asyncio
import contextlib
import resource
import signal
import sys
from asyncio import sslproto
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NoReturn

import msgspec
import typer

from vnode import __version__, options
from vnode.config import load
from vnode.errors import ConfigError, VnodeError
from vnode.join import commands as joining
from vnode.kube.credentials import own_namespace
from vnode.kube.objects import Key
from vnode.observe import commands as observe
from vnode.observe import completion
from vnode.options import Config, HomeContext, Kubeconfig, PeerFlags
from vnode.rules import validate
from vnode.telemetry import log as logs

cli = typer.Typer(
    name="vnode",
    help="Peer clusters as nodes: one virtual Node for each peer in the home cluster, its Pods run over there.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

cli.add_typer(observe.commands)
cli.add_typer(joining.peer)
for command in (joining.join, joining.leave, joining.rbac):
    cli.command()(command)

LogFormat = Annotated[Literal["auto", "json", "text"], typer.Option(help="auto: text on a terminal, else JSON lines.")]
LogLevel = Annotated[Literal["debug", "info", "warning", "error"], typer.Option(help="Least level that is logged.")]

_TLS_BUFFER: Final = 64 * 2**10


def main(name: str | None = None) -> None:
    """Entry point of the `vnode` command and of `python -m vnode`. `name` is what help calls it, if not what it is."""
    try:
        cli(prog_name=name)
    except ConfigError as error:
        _fail(str(error), 2)
    except VnodeError as error:
        _fail(str(error), 1)
    except (KeyboardInterrupt, asyncio.CancelledError):
        _fail("interrupted", 130)
    except ExceptionGroup as group:  # of the tasks that ran; one that holds a bug keeps its traceback
        foreseen, bugs = group.split(VnodeError)
        if foreseen is None or bugs is not None:
            raise
        _fail("\n".join(_messages(foreseen)), 1 if foreseen.split(ConfigError)[1] else 2)


def _messages(error: Exception) -> Iterator[str]:
    if isinstance(error, ExceptionGroup):
        for inner in error.exceptions:
            yield from _messages(inner)
    else:
        yield str(error)


def _fail(message: str, code: int) -> NoReturn:
    for line in message.splitlines() or [""]:
        print(f"vnode: {line}", file=sys.stderr)
    raise SystemExit(code)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"vnode {__version__}")
        raise typer.Exit


@cli.callback()
def _root(
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Peer clusters as nodes: one virtual Node for each peer in the home cluster, its Pods run over there."""


@cli.command()
def run(
    config: Config = None,
    peer: PeerFlags = None,
    kubeconfig: Kubeconfig = "",
    context: HomeContext = "",
    peer_objects: Annotated[
        bool, typer.Option("--peer-objects", help="Serve the Peer objects of the home cluster instead.")
    ] = False,
    namespace: Annotated[
        str, typer.Option(help="Where the Secrets of Peer objects are. Default: that of our Pod, else vnode-system.")
    ] = "",
    deregister_on_exit: Annotated[
        bool, typer.Option("--deregister-on-exit", help="On SIGTERM drain and remove the Nodes (default: keep them).")
    ] = False,
    admin_address: Annotated[str, typer.Option(help="Where /healthz, /readyz and /metrics are.")] = "127.0.0.1",
    admin_port: Annotated[int, typer.Option(help="0 takes a free one and logs it.")] = 10260,
    log_format: LogFormat = "auto",
    log_level: LogLevel = "info",
) -> None:
    """Run the virtual nodes until SIGTERM.

    Pods at the peers go on running when this process stops or dies; it picks them up again at its next start.

    \b
    vnode run --peer edge=edge.conf                        home from $KUBECONFIG or ~/.kube/config
    vnode run --config vnode.yaml --kubeconfig home.conf   peers from a file
    vnode run --peer-objects                               peers that `kubectl get peers` shows
    kubectl get nodes -l type=virtual-kubelet              then, to see them
    """
    from vnode.app import App

    logs.setup(log_level, log_format)
    if peer_objects and deregister_on_exit:
        raise ConfigError("--deregister-on-exit: not with --peer-objects; deleting a Peer drains its Node")
    settings = options.settings(config, peer, (namespace or own_namespace()) if peer_objects else "")
    _raise_descriptor_limit()
    _shrink_tls_buffers()
    app = App(
        settings,
        options.home(kubeconfig, context),
        admin_address=admin_address,
        admin_port=admin_port,
    )
    asyncio.run(
        _until_signal(lambda stop: app.run_and_remove(stop, _tell, 600) if deregister_on_exit else app.run(stop))
    )


@cli.command()
def check(
    config: Config = None,
    peer: PeerFlags = None,
    kubeconfig: Kubeconfig = "",
    context: HomeContext = "",
) -> None:
    """Check the configuration, reach both sides, and test every permission that is needed.

    Prints a table of what would work and what is missing; exit code 1 when something needed is.

    \b
    vnode check --config vnode.yaml
    """
    from vnode.check import report

    logs.setup("error")
    settings = options.settings(config, peer)
    raise typer.Exit(asyncio.run(report(settings, options.home(kubeconfig, context))))


@cli.command()
def diff(
    config: Annotated[Path, typer.Option("--config", "-c", help="YAML file with the peers (README has its keys).")],
    pod: Annotated[str, typer.Argument(help="The Pod's name, at home.")] = "",
    file: Annotated[
        str, typer.Option("--filename", "-f", help="Manifests instead (- is standard input); nobody is asked, then.")
    ] = "",
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="The Pod's; the file's, where it says none.")] = (
        "default"
    ),
    peer: Annotated[
        str, typer.Option("--peer", metavar="NAME", help="The peer. Default: the Pod's, or the only one.")
    ] = "",
    kubeconfig: Kubeconfig = "",
    context: HomeContext = "",
) -> None:
    """Show how a Pod would run at a peer, as a diff: what is translated, and what the peer's overrides change.

    A Pod always differs: exit code 0 says that it can travel, 1 that one cannot (or that home did not answer).

    \b
    vnode diff -c vnode.yaml -n shop web-7c9f           a Pod at home
    vnode diff -c vnode.yaml -f web.yaml --peer edge    a manifest, offline
    """
    from vnode.diff import show_file, show_pod

    logs.setup("error")
    settings = load(config)
    validate(settings, files=False)
    if bool(pod) == bool(file):
        raise ConfigError("expected either a Pod's name or --filename")
    if file:
        show_file(settings, file, namespace, peer)
    else:
        asyncio.run(show_pod(settings, options.home(kubeconfig, context), Key(namespace, pod), peer))


@cli.command()
def remove(
    name: Annotated[str, typer.Argument(help="The virtual Node's name.", autocompletion=completion.nodes)],
    config: Config = None,
    peer: PeerFlags = None,
    kubeconfig: Kubeconfig = "",
    context: HomeContext = "",
    timeout_s: Annotated[float, typer.Option("--timeout", help="Seconds to wait for evicted Pods to end.")] = 600,
) -> None:
    """Drain a virtual Node and remove it: its Pods are evicted, the Node goes, and what is left at the peer.

    Run it when no `vnode run` serves the node any more (stop it, or take the peer out of its configuration first).
    """
    from vnode.app import App

    logs.setup("warning")
    settings = options.settings(config, peer)
    chosen = tuple(spec for spec in settings.peers if spec.node_name == name)
    if not chosen:
        known = ", ".join(spec.node_name for spec in settings.peers)
        raise ConfigError(f"no peer has a Node named {name}; configured: {known}")
    _raise_descriptor_limit()
    app = App(msgspec.structs.replace(settings, peers=chosen), options.home(kubeconfig, context))
    at_once = asyncio.Event()
    at_once.set()
    asyncio.run(app.run_and_remove(at_once, _tell, timeout_s))


@cli.command()
def demo(
    peers: Annotated[int, typer.Option(min=1, max=10, help="How many peer clusters.")] = 2,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the clusters running, and their directory, at the end.")
    ] = False,
    real_nodes: Annotated[
        bool, typer.Option("--real-nodes", help="Real kubelets and containers in the peers (root and containerd).")
    ] = False,
    exit_when_ready: Annotated[
        bool, typer.Option("--exit-when-ready", help="Stop by itself once the sample Deployment is Ready.")
    ] = False,
) -> None:
    """Start a home and peer clusters on this machine, with vnode between, and run a Deployment over them.

    Real control planes are built once (about 15 minutes on two cores) and cached; after that it takes half a minute.
    Ctrl-C ends everything and leaves nothing but the cache.
    """
    from vnode.devcluster.demo import run_demo

    raise typer.Exit(run_demo(peers=peers, keep=keep, real_nodes=real_nodes, exit_when_ready=exit_when_ready))


def _raise_descriptor_limit() -> None:
    """As many open files as this process may have: the usual 1024 is for those that call `select`, which we do not."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError, OSError):  # a system with a lower limit of its own: then as before
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _shrink_tls_buffers() -> None:
    """asyncio keeps 256 KiB for each TLS connection; a session has two, and is no slower with four records in each."""
    sslproto.SSLProtocol.max_size = _TLS_BUFFER


def _tell(message: str) -> None:
    print(message, flush=True)


async def _until_signal(run: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """The first signal stops in good order; a second one ends it at once."""
    stop, task = asyncio.Event(), asyncio.current_task()
    assert task is not None

    def signalled() -> None:
        if stop.is_set():
            task.cancel()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled)
    await run(stop)
