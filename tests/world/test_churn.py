"""The hardest promise: vnode may be killed at any moment of a churn, as often as one likes."""

import itertools
import random
import threading
from collections import Counter
from collections.abc import Callable

from tests.expect import eventually
from tests.world.api import Json, Recorder
from tests.world.manifests import deployment, job, pod
from tests.world.vnodes import Space, Vnode, condition, origin_uid, peer_config, uid
from vnode import names
from vnode.devcluster.cluster import Cluster

KILLS = 20
PODS = 300
DEPLOYMENTS = 6
SEED = 20
SLOW_STOP = {"kwok.test/stop-after": "1s"}


class _Churn:
    """A user's random but seeded doings in one namespace."""

    def __init__(self, space: Space, chance: random.Random) -> None:
        self._space = space
        self._chance = chance
        self._number = itertools.count()
        self._bare: list[str] = []

    def begin(self) -> None:
        for number in range(DEPLOYMENTS):
            stop = SLOW_STOP if number % 2 else {}
            self._space.create(deployment(f"web-{number}", self._space.node, 5, annotations=stop))

    def step(self) -> None:
        self._chance.choices([self._scale, self._job, self._add, self._remove, self._force], [5, 2, 3, 2, 1])[0]()

    def _scale(self) -> None:
        name = f"web-{self._chance.randrange(DEPLOYMENTS)}"
        replicas = self._chance.randrange(25)
        self._space.home.patch("Deployment", self._space.name, name, {"spec": {"replicas": replicas}})

    def _job(self) -> None:
        size = self._chance.randrange(1, 6)
        spec = {"completions": size, "parallelism": size, "backoffLimit": 0}
        self._space.create(job(f"job-{next(self._number)}", self._space.node, spec=spec))

    def _add(self) -> None:
        self._bare.append(f"bare-{next(self._number)}")
        self._space.create(pod(self._bare[-1], self._space.node, annotations=SLOW_STOP))

    def _remove(self) -> None:
        if self._bare:
            self._space.home.delete("Pod", self._space.name, self._taken())

    def _force(self) -> None:
        """Delete by force and make another of the same name at once."""
        if self._bare:
            name = self._taken()
            self._space.home.delete("Pod", self._space.name, name, grace_s=0)
            self._space.create(pod(name, self._space.node))
            self._bare.append(name)

    def _taken(self) -> str:
        return self._bare.pop(self._chance.randrange(len(self._bare)))


def test_twenty_kills_during_churn_lose_nothing(
    own_vnode: Callable[..., Vnode], peer_a: Cluster, new_space: Callable[..., Space]
) -> None:
    chance = random.Random(SEED)
    vnode = own_vnode(peer_config("churn", peer_a)).start().wait_ready()
    space = new_space(peer_a, "churn")
    here = Recorder(space.home, "Pod", space.name, keep=_essence)
    there = Recorder(space.peer, "Pod", labels=f"{names.ORIGIN_NODE}=churn", keep=_essence)
    churn = _Churn(space, chance)
    churn.begin()
    for _ in range(KILLS):
        killed = threading.Event()

        def kill(done: threading.Event = killed) -> None:
            vnode.kill()
            done.set()

        # From within its start to well into its work.
        timer = threading.Timer(chance.uniform(0.5, 4.0), kill)
        timer.start()
        while not killed.wait(0.1):
            churn.step()
        timer.join()
        vnode.start()
    vnode.wait_ready()
    eventually("all workloads are at rest", lambda: _at_rest(space), 120)
    pods, mirrors = space.pods(), space.mirrors()
    assert {name: uid(item) for name, item in pods.items()} == {
        name: origin_uid(item) for name, item in mirrors.items()
    }
    assert {item["status"]["phase"] for item in pods.values()} == {"Running", "Succeeded"}
    for item in (*pods.values(), *mirrors.values()):
        assert [status["restartCount"] for status in item["status"]["containerStatuses"]] == [0]
    _delete_all(space)
    space.wait_gone(120)
    assert not space.peer.list("Pod", labels=f"{names.ORIGIN_NODE}=churn")

    at_home, at_peer = here.stop(), there.stop()
    made = Counter(item["origin"] for what, item in at_peer if what == "ADDED")
    assert {origin: count for origin, count in made.items() if count > 1} == {}
    assert len({item["uid"] for _, item in at_home}) >= PODS
    failed = {item["uid"] for _, item in at_home if item["phase"] == "Failed" and not item["leaving"]}
    assert failed == set()
    assert vnode.metric("vnode_runtime_bugs_total") == 0
    assert '"level": "error"' not in vnode.log
    assert "Traceback" not in vnode.log


def _essence(item: Json) -> Json:
    metadata = item["metadata"]
    return {
        "uid": metadata["uid"],
        "origin": metadata.get("annotations", {}).get(names.ORIGIN_UID),
        "leaving": "deletionTimestamp" in metadata,
        "phase": item["status"].get("phase"),
    }


def _at_rest(space: Space) -> bool:
    for item in space.home.list("Deployment", space.name):
        wanted, status = item["spec"]["replicas"], item["status"]
        ready = {status.get(name, 0) for name in ("replicas", "readyReplicas", "updatedReplicas")}
        assert ready == {wanted}, f"{item['metadata']['name']}: {ready} of {wanted}"
        assert status["observedGeneration"] == item["metadata"]["generation"]
    for item in space.home.list("Job", space.name):
        assert condition(item, "Complete").get("status") == "True", item["metadata"]["name"]
    pods, mirrors = space.pods(), space.mirrors()
    for side, items in (("home", pods), ("the peer", mirrors)):
        leaving = {
            name: (item["status"].get("phase"), item["metadata"].get("finalizers"))
            for name, item in items.items()
            if "deletionTimestamp" in item["metadata"]
        }
        assert not leaving, f"leaving at {side}: {leaving}"
    assert set(pods) == set(mirrors)
    waiting = [name for name, item in pods.items() if item["status"]["phase"] == "Pending"]
    assert not waiting, f"Pending: {waiting}"
    return True


def _delete_all(space: Space) -> None:
    space.kubectl("delete", "deployments,jobs,pods", "--all", "--wait=false")
