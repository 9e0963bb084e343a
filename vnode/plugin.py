"""vnode as a kubectl plugin: `kubectl vnode …`, and what kubectl asks for its completion.

kubectl finds both by name on the PATH: `kubectl-vnode`, and `kubectl_complete-vnode`, which answers as cobra's
`__complete` does (k8s.io/kubectl v0.37 pkg/cmd/plugin/plugin_completion.go). They are entry points, and call `cli`.
"""

import io
import os
import shlex
import sys
from contextlib import redirect_stdout, suppress

from vnode import cli

_NO_FILES = ":4"  # cobra's ShellCompDirectiveNoFileComp: names of files are no answer to anything here


def main() -> None:
    """Entry point `kubectl-vnode`."""
    cli.main("kubectl vnode")


def complete() -> None:
    """Entry point `kubectl_complete-vnode`: candidates for the last argument, one a line, then the directive."""
    words = ["vnode", *sys.argv[1:]]
    # Typer's own protocol for bash: the words so far, and which of them is being typed.
    typed = {"COMP_WORDS": shlex.join(words), "COMP_CWORD": str(len(words) - 1)}
    os.environ |= {"_VNODE_COMPLETE": "complete_bash", **typed}
    said = io.StringIO()
    with redirect_stdout(said), suppress(SystemExit):
        cli.main("vnode")
    print("\n".join([*said.getvalue().split(), _NO_FILES]))
