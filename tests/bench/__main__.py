"""`python -m tests.bench SCENARIO`: print the figures as JSON and append them to `tests/bench/results.jsonl`."""

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path

from tests.bench.burst import burst

parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
scenarios = parser.add_subparsers(dest="scenario", required=True)
command = scenarios.add_parser("burst", help="one Deployment of N Pods, direct and through vnode")
command.add_argument("--pods", type=int, default=1000)
command.add_argument("--singles", type=int, default=50, help="then so many Pods one at a time (0: none)")
arguments = parser.parse_args()

figures = burst(arguments.pods, arguments.singles)
figures["at"] = datetime.now(UTC).isoformat(timespec="seconds")
print(json.dumps(figures, indent=2))
with (Path(__file__).parent / "results.jsonl").open("a") as results:
    results.write(json.dumps(figures) + "\n")
