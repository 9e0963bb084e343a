"""vnode as a child process, as a user runs it, and the namespace each test has to itself."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tests.expect import eventually
from tests.world.accounts import kubeconfig
from tests.world.api import Api, Json
from tests.world.manifests import bound
from vnode import names
from vnode.devcluster.cluster import Cluster
from vnode.devcluster.processes import ProcessGroup, free_port

CLUSTER = "world"  # home's name in all configurations
REPO = Path(__file__).parents[2]
_running: list["Vnode"] = []


def peer_config(name: str, cluster: Cluster, **more: object) -> Json:
    """One entry of `peers` in a configuration."""
    return {"name": name, "kubeconfig": str(kubeconfig(cluster.plane)), **more}


class Vnode:
    """`vnode run` for `peers` (entries of the configuration), its log and its admin port."""

    def __init__(self, directory: Path, home: Cluster, peers: Sequence[Json], *flags: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.config = directory / "vnode.yaml"
        self.config.write_text(
            yaml.safe_dump({"cluster": CLUSTER, "kubelet": {"address": "127.0.0.1"}, "peers": list(peers)})
        )
        self.home = home
        self.nodes = [str(peer["name"]) for peer in peers]
        self._flags = flags
        self._processes = ProcessGroup(directory)
        self._port = 0

    def start(self, *flags: str) -> "Vnode":
        """Start it; returns at once."""
        self._port = free_port()
        command: list[str | Path] = [sys.executable, "-m", "vnode", "run", "--config", self.config]
        command += ["--kubeconfig", kubeconfig(self.home.plane), "--admin-port", str(self._port)]
        self._processes.start("vnode", [*command, *self._flags, *flags], env=os.environ)
        if self not in _running:
            _running.append(self)
        return self

    def wait_ready(self, limit_s: float = 60) -> "Vnode":
        """Return when every store is filled and every Node says that it is Ready."""

        def ready() -> bool:
            self._processes.check("vnode")
            return self.admin("/readyz")[0] == 200 and all(self.ready(node)["status"] == "True" for node in self.nodes)

        eventually("vnode is ready", ready, limit_s)
        return self

    def ready(self, node: str) -> Json:
        """The Ready condition of a Node, without keys when there is none."""
        found = self.home.plane.kubectl("get", "--raw", f"/api/v1/nodes/{node}", check=False)
        conditions = json.loads(found.stdout or "{}").get("status", {}).get("conditions", ())
        return next((condition for condition in conditions if condition["type"] == "Ready"), {"status": "absent"})

    @property
    def admin_url(self) -> str:
        """Of the admin port."""
        return f"http://127.0.0.1:{self._port}"

    def admin(self, path: str) -> tuple[int, str]:
        """Status and text of a GET on the admin port; status 0 when nobody answers."""
        try:
            with urllib.request.urlopen(f"{self.admin_url}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry `labels`."""
        total = 0.0
        for line in self.admin("/metrics")[1].splitlines():
            sample, _, value = line.rpartition(" ")
            if sample.partition("{")[0] == name and all(f'{key}="{text}"' in sample for key, text in labels.items()):
                total += float(value)
        return total

    def kill(self) -> None:
        """End it as a crash would."""
        self._processes.kill("vnode")

    def terminate(self, limit_s: float = 60) -> None:
        """SIGTERM, and return when it has ended by itself."""
        self._processes.signal("vnode", signal.SIGTERM)
        eventually("vnode ends", lambda: not self._processes.running("vnode"), limit_s)

    def stop(self) -> None:
        """End it, whatever state it is in."""
        self._processes.stop()
        if self in _running:
            _running.remove(self)

    @contextmanager
    def growing_less_than(self, mib: int) -> Iterator[None]:
        """Its memory, at its peak within the block, is less than so much above what it was before (needs root)."""
        proc = Path(f"/proc/{self._processes.pid('vnode')}")
        (proc / "clear_refs").write_text("5")  # the peak counts from here
        before = _memory(proc)
        yield
        grown = (_memory(proc) - before) >> 20
        assert grown < mib, f"vnode grew by {grown} MiB"

    @property
    def log(self) -> str:
        """All that it wrote so far, over all starts."""
        path = self._processes.log("vnode")
        return path.read_text() if path.exists() else ""

    def log_lines(self) -> list[Json]:
        """The log's entries."""
        return [json.loads(line) for line in self.log.splitlines()]


def _memory(proc: Path) -> int:
    """The peak of a process's resident memory, in bytes."""
    return 1024 * int((proc / "status").read_text().partition("VmHWM:")[2].split()[0])


def log_tails(lines: int = 60) -> list[tuple[str, str]]:
    """For the report of a failed test: the end of the log of each vnode that runs."""
    return [
        (f"log of vnode for {', '.join(vnode.nodes)}", "\n".join(vnode.log.splitlines()[-lines:])) for vnode in _running
    ]


def run_cli(*arguments: str | Path, limit_s: float = 60) -> subprocess.CompletedProcess[str]:
    """`vnode ARGUMENTS` to its end."""
    environment = {**os.environ, "COLUMNS": "120", "NO_COLOR": "1", "KUBECONFIG": "/nowhere"}
    command: list[str | Path] = [sys.executable, "-m", "vnode", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=limit_s, check=False, env=environment, stdin=subprocess.DEVNULL
    )


@dataclass
class Space:
    """One test's namespace at home, and where its Pods are at the peer `node` stands for."""

    home: Api
    peer: Api
    name: str
    node: str
    remote: str = field(init=False)

    def __post_init__(self) -> None:
        self.remote = f"{self.name}-{CLUSTER}"

    def create(self, *items: Json) -> None:
        """Create objects in the home namespace."""
        for item in items:
            self.home.create(item, self.name)

    def kubectl(self, *arguments: str | Path, limit_s: float = 90) -> str:
        """What kubectl printed, run by a user in this namespace. Raises DevClusterError when it fails."""
        return self.home.plane.kubectl("-n", self.name, *arguments, timeout=limit_s).stdout

    def rolled_out(self, what: str) -> None:
        """`kubectl rollout status` has come to its good end."""
        self.kubectl("rollout", "status", what, "--timeout=80s")

    def pods(self, labels: str = "") -> dict[str, Json]:
        """The home Pods by name."""
        return {item["metadata"]["name"]: item for item in self.home.list("Pod", self.name, labels)}

    def mirrors(self, labels: str = "") -> dict[str, Json]:
        """Ours at the peer by name."""
        return {item["metadata"]["name"]: item for item in self.peer.list("Pod", self.remote, labels)}

    def pod(self, name: str) -> Json | None:
        """A home Pod, or None."""
        return self.home.find("Pod", self.name, name)

    def mirror(self, name: str) -> Json | None:
        """A Pod at the peer, or None."""
        return self.peer.find("Pod", self.remote, name)

    def wait_ready(self, *wanted: str, limit_s: float = 40) -> dict[str, Json]:
        """The home Pods of these names, once all are Ready."""

        def ready() -> dict[str, Json]:
            found = self.pods()
            missing = [name for name in wanted if not is_ready(found.get(name))]
            assert not missing, f"not Ready: {missing}"
            return found

        return eventually(f"Pods {', '.join(wanted)} are Ready", ready, limit_s)

    def wait_one_to_one(self, count: int, limit_s: float = 60) -> dict[str, Json]:
        """The home Pods, once there are `count`, none leaving, each with its own mirror and no mirror besides."""

        def paired() -> dict[str, Json]:
            here, there = self.pods(), self.mirrors()
            assert not [name for name, item in {**here, **there}.items() if "deletionTimestamp" in item["metadata"]]
            assert {name: uid(item) for name, item in here.items()} == {
                name: origin_uid(item) for name, item in there.items()
            }
            assert len(here) == count
            return here or {"": {}}

        return eventually(f"{count} Pods, each with its mirror", paired, limit_s)

    def wait_gone(self, limit_s: float = 60) -> None:
        """Return when no Pod is left on either side."""

        def gone() -> bool:
            left = [*self.pods(), *self.mirrors()]
            assert not left, f"left: {left}"
            return True

        eventually("no Pod is left on either side", gone, limit_s)

    def wait_remote_namespace_leaves(self) -> None:
        """Return when the remote namespace is gone or on its way: how long that takes is the peer's affair."""

        def leaves() -> bool:
            found = self.peer.find("Namespace", "", self.remote)
            return found is None or "deletionTimestamp" in found["metadata"]

        eventually(f"namespace {self.remote} leaves the peer", leaves)

    def wait_refused(self, name: str, reason: str, limit_s: float = 30) -> str:
        """The message, once the Pod's condition and an Event on it give `reason`."""

        def refused() -> str:
            condition = self.condition(name, names.REMOTE_CONDITION)
            assert (condition.get("status"), condition.get("reason")) == ("False", reason)
            events = self.home.list("Event", self.name, fields=f"involvedObject.name={name},reason={reason}")
            assert [event["type"] for event in events] == ["Warning"], "no Event"
            return str(condition["message"])

        return eventually(f"Pod {name} is refused with {reason}", refused, limit_s)

    def condition(self, pod: str, kind: str) -> Json:
        """A condition of a home Pod, without keys when it has none of this type."""
        return condition(self.pod(pod), kind)

    def settle(self) -> None:
        """Return when vnode has seen everything that happened before: a Pod made now is Ready, and gone again."""
        self.create(bound("settle", self.node))
        self.wait_ready("settle")
        self.home.delete("Pod", self.name, "settle")
        eventually("the Pod by which we wait is gone", lambda: not self.pod("settle") and not self.mirror("settle"))


def condition(item: Json | None, kind: str) -> Json:
    """A condition of an object, without keys when it has none of this type."""
    found = (item or {}).get("status", {}).get("conditions", ())
    return next((entry for entry in found if entry["type"] == kind), {})


def is_ready(item: Json | None) -> bool:
    """Whether a Pod is Ready and stays."""
    return condition(item, "Ready").get("status") == "True" and "deletionTimestamp" not in (item or {})["metadata"]


def uid(item: Json) -> str:
    """The object's uid."""
    return str(item["metadata"]["uid"])


def origin_uid(mirror: Json) -> str:
    """The uid of the home Pod a mirror stands for."""
    return str(mirror["metadata"]["annotations"][names.ORIGIN_UID])


def uids(items: dict[str, Json]) -> dict[str, str]:
    """Name to uid."""
    return {name: uid(item) for name, item in items.items()}
