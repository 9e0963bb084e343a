"""`python -m tests.skew --peer v1.36 [--peer v1.34] [TESTS]`: a table of what passed against such peers.

Without TESTS, all of `tests/world`; `tests/world/test_jobs.py`, `-k exec tests/world` and the like run fewer.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from tests.skew.binaries import built, newest_patch

REPO: Final = Path(__file__).parents[2]
ELSEWHERE: Final = ("test_devcluster.py", "test_demo.py")  # they make clusters of their own, all of our version


def main() -> int:
    """0 when everything passed at every version."""
    parser = argparse.ArgumentParser(prog="python -m tests.skew", description=__doc__)
    parser.add_argument("--peer", action="append", required=True, help="v1.36 (its newest patch) or v1.36.3")
    arguments, further = parser.parse_known_args()
    worst = 0
    for version in [newest_patch(peer) for peer in arguments.peer]:
        binaries = built(version)
        with tempfile.TemporaryDirectory(prefix="vnode-skew-") as folder:
            report = Path(folder) / "report.xml"
            left_out = [f"--ignore=tests/world/{name}" for name in ELSEWHERE]
            command = [sys.executable, "-m", "pytest", "-q", f"--junit-xml={report}", *left_out]
            command += further or ["tests/world"]
            environment = {**os.environ, "VNODE_PEER_BINARIES": str(binaries)}
            worst = max(worst, subprocess.run(command, cwd=REPO, env=environment, check=False).returncode)
            _print_table(version, report)
    return worst


def _print_table(version: str, report: Path) -> None:
    print(f"\npeer v{version}, home as ever")
    for case in ElementTree.parse(report).iter("testcase"):
        problems = {child.tag for child in case} & {"failure", "error", "skipped"}
        module = case.attrib["classname"].rpartition(".test_")[2]
        print(f"  {min(problems, default='passed'):8} {module}: {case.attrib['name'].removeprefix('test_')}")


if __name__ == "__main__":
    sys.exit(main())
