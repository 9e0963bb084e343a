"""`python -m tests.bench SCENARIO`: print the figures as JSON and append them to `tests/bench/results.jsonl`."""

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path

from tests.bench.burst import burst
from tests.bench.logs import logs
from tests.bench.streams import streams

parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
scenarios = parser.add_subparsers(dest="scenario", required=True)
command = scenarios.add_parser("burst", help="one Deployment of N Pods, direct and through vnode")
command.add_argument("--pods", type=int, default=1000)
command.add_argument("--singles", type=int, default=50, help="then so many Pods one at a time (0: none)")
command = scenarios.add_parser("logs", help="followers of a real container's log (root, containerd)")
command.add_argument("--followers", type=int, default=50)
command.add_argument("--lines", type=int, default=50)
command = scenarios.add_parser("streams", help="exec, logs and cp of a real container, and idle sessions (root)")
command.add_argument("--sessions", type=int, default=500, help="idle exec sessions")
command.add_argument("--mib", type=int, default=100, help="size of the file that is copied")
arguments = parser.parse_args()

if arguments.scenario == "burst":
    figures = burst(arguments.pods, arguments.singles)
elif arguments.scenario == "logs":
    figures = logs(arguments.followers, arguments.lines)
else:
    figures = streams(arguments.sessions, arguments.mib)
figures["at"] = datetime.now(UTC).isoformat(timespec="seconds")
print(json.dumps(figures, indent=2))
with (Path(__file__).parent / "results.jsonl").open("a") as results:
    results.write(json.dumps(figures) + "\n")
