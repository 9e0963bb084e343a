"""The options that commands share, and the way from them to settings and credentials.

Declared once, so that `--kubeconfig` means the same everywhere. Called by `cli` and by the rooms that bring commands of
their own.
"""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from vnode.config import Settings, combine, from_flags, load
from vnode.kube import credentials
from vnode.kube.credentials import Credentials
from vnode.rules import check_kubeconfig, validate

Config = Annotated[Path | None, typer.Option("--config", "-c", help="YAML file with the peers (README has its keys).")]
PeerFlags = Annotated[
    list[str] | None,
    typer.Option("--peer", metavar="NAME=KUBECONFIG[#CONTEXT]", help="A peer with default settings; may be repeated."),
]
Kubeconfig = Annotated[
    str,
    typer.Option(help="Of the home cluster. Default: $KUBECONFIG, ~/.kube/config, or the Pod's own account."),
]
HomeContext = Annotated[str, typer.Option("--context", help="Context of the home cluster's kubeconfig.")]


def settings(config: Path | None, peers: list[str] | None, objects_in: str = "") -> Settings:
    """What file and flags say, held against the rules. `objects_in`: where Peer objects' Secrets are, when they count.

    Raises ConfigError.
    """
    given = combine(load(config) if config else None, from_flags(peers or []))
    given = msgspec.structs.replace(given, objects_in=objects_in)
    validate(given)
    return given


def home(kubeconfig: str, context: str) -> Credentials:
    """The home cluster's credentials. Raises ConfigError when there are none, or `--kubeconfig` cannot be used."""
    if kubeconfig:
        check_kubeconfig("--kubeconfig", kubeconfig, context)
    return credentials.home(kubeconfig, context)
