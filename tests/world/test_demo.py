"""`vnode demo`, as README's first command runs it: a Deployment Ready on two virtual nodes, and nothing left."""

import os
import subprocess
import sys
from pathlib import Path

from vnode.devcluster.build import Binaries

REPOSITORY = Path(__file__).parents[2]


def test_the_demo_ends_with_a_deployment_ready_on_two_virtual_nodes(binaries: Binaries, tmp_path: Path) -> None:
    assert binaries["kwok"].exists()
    done = subprocess.run(
        [sys.executable, "-m", "vnode", "demo", "--exit-when-ready"],
        cwd=REPOSITORY,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for peer in ("peer-1", "peer-2"):
        assert f"Ready on {peer}, at the peer in default-home on {peer}-" in done.stdout
    assert "The first Pod was Ready after" in done.stdout
    assert list(tmp_path.iterdir()) == []
    listing = subprocess.run(["ps", "-ewwo", "args"], capture_output=True, text=True, check=True).stdout
    assert f"{tmp_path}/" not in listing
