"""Real clusters for the world tests, started once a session: `home`, `peer_a` and `peer_b` at once, `real_peer` when
first wanted.

Tests share them: make objects with names of your own, and do not stop what you did not start.
"""

import itertools
import os
import shutil
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.expect import eventually
from tests.world.accounts import AUDIT, REFUSED, install, may_read_secrets
from tests.world.api import Api
from tests.world.manifests import OVERRIDES
from tests.world.vnodes import Space, Vnode, log_tails, peer_config
from vnode.devcluster.build import CONTROL_PLANE, Binaries, ensure_binaries
from vnode.devcluster.cluster import Cluster
from vnode.devcluster.controlplane import start_together
from vnode.devcluster.realnode import available

_BINARIES = (*CONTROL_PLANE, "kubelet", "kwok", "metrics-server", "helm")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what is missing here and now: within a fixture it would fall under a test's timeout, and say nothing."""
    here = Path(__file__).parent
    if session.config.option.collectonly or not any(here in item.path.parents for item in session.items):
        return
    reporter = session.config.pluginmanager.getplugin("terminalreporter")
    ensure_binaries(_BINARIES, reporter.write_line if reporter else lambda _: None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What judges all that the others had vnode do comes last."""
    items.sort(key=lambda item: item.path.name == "test_rights.py")


@pytest.fixture(scope="session")
def binaries() -> Binaries:
    """Every binary of a cluster, of the versions this checkout is for."""
    return ensure_binaries(_BINARIES, lambda _: None)


@pytest.fixture(scope="session")
def peer_binaries(binaries: Binaries) -> Binaries:
    """The peers': the same, but for components that `tests.skew` has of another version."""
    others = os.environ.get("VNODE_PEER_BINARIES")
    return Binaries({**binaries.paths, **{path.name: path for path in Path(others).iterdir()}}) if others else binaries


@dataclass(frozen=True)
class _World:
    home: Cluster
    peer_a: Cluster
    peer_b: Cluster


@pytest.fixture(scope="session")
def _world(binaries: Binaries, peer_binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[_World]:
    directory = tmp_path_factory.mktemp("world")
    clusters = [
        # One node at home as well: what must not run at a peer is to run somewhere.
        Cluster("home", directory / "home", binaries, index=0, simulated=1, audit_policy=AUDIT),
        Cluster("peer-a", directory / "peer-a", peer_binaries, index=1, simulated=2, audit_policy=AUDIT),
        Cluster("peer-b", directory / "peer-b", peer_binaries, index=2, simulated=2, audit_policy=AUDIT),
    ]
    start_together(clusters)
    install(clusters[0].plane, "home")
    for cluster in clusters[1:]:
        install(cluster.plane, "peer")
    yield _World(*clusters)
    for cluster in clusters:
        _end(cluster)


@pytest.fixture(scope="session")
def home(_world: _World) -> Cluster:
    """The home cluster, with one simulated node."""
    return _world.home


@pytest.fixture(scope="session")
def peer_a(_world: _World) -> Cluster:
    """A peer cluster with two simulated nodes."""
    return _world.peer_a


@pytest.fixture(scope="session")
def peer_b(_world: _World) -> Cluster:
    """Another one."""
    return _world.peer_b


@pytest.fixture(scope="session")
def real_peer(peer_binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A peer cluster with one node where containers truly run; skips, with the reason, where that cannot be."""
    if reason := available():
        pytest.skip(reason)
    place = tmp_path_factory.mktemp("real-peer")
    cluster = Cluster("real-peer", place, peer_binaries, index=3, real=1, audit_policy=AUDIT)
    cluster.start()
    install(cluster.plane, "peer")
    yield cluster
    _end(cluster)


@pytest.fixture(scope="session")
def vnode(home: Cluster, peer_a: Cluster, peer_b: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vnode]:
    """`vnode run` with the nodes edge-a and edge-b, for all tests that do not stop it.

    edge-b maps the home namespace `world-shop` to `store`, does not take what is labelled `vnode.test/stay`, and has
    overrides for Pods labelled `vnode.test/overrides`.
    """
    stay = {"matchExpressions": [{"key": "vnode.test/stay", "operator": "DoesNotExist"}]}
    peers = [
        peer_config("edge-a", peer_a),
        peer_config(
            "edge-b", peer_b, namespaces={"map": {"world-shop": "store"}, "selector": stay}, overrides=OVERRIDES
        ),
    ]
    process = Vnode(tmp_path_factory.mktemp("vnode"), home, peers).start()
    yield process.wait_ready()
    process.stop()


@pytest.fixture(scope="session")
def real_vnode(home: Cluster, real_peer: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vnode]:
    """`vnode run` with two nodes for the peer with a real node: edge-real, and edge-ws, which gets WebSockets as such.

    The remote namespaces of edge-ws are `NAMESPACE-ws`.
    """
    passed = {"node": {"webSockets": "passed"}, "namespaces": {"template": "{namespace}-ws"}}
    peers = [peer_config("edge-real", real_peer), peer_config("edge-ws", real_peer, **passed)]
    process = Vnode(tmp_path_factory.mktemp("vnode-real"), home, peers).start()
    yield process.wait_ready()
    process.stop()


@pytest.fixture
def own_vnode(home: Cluster, tmp_path: Path) -> Iterator[Callable[..., Vnode]]:
    """Makes a vnode, not started yet, of one's own: `own_vnode(peer_config(...), ..., flags=[...])`.

    Its Nodes are removed with it at the end of the test.
    """
    made: list[Vnode] = []

    def make(*peers: dict[str, Any], flags: tuple[str, ...] = ()) -> Vnode:
        made.append(Vnode(tmp_path / f"vnode-{len(made)}", home, peers, *flags))
        return made[-1]

    yield make
    for process in made:
        process.stop()
        for node in process.nodes:
            Api(home.plane).delete("Node", "", node)


@pytest.fixture
def new_space(home: Cluster) -> Iterator[Callable[..., Space]]:
    """Makes a home namespace for one test: `new_space(peer_cluster, node)`; removed, with its Pods, at the end."""
    api = Api(home.plane)
    made: list[Space] = []

    def make(peer: Cluster, node: str, name: str = "", labels: dict[str, str] | None = None) -> Space:
        name = name or f"world-{next(_number)}"
        api.create({"kind": "Namespace", "metadata": {"name": name, "labels": labels or {}}})
        if not name.startswith(REFUSED):
            may_read_secrets(home.plane, name)
        made.append(Space(api, Api(peer.plane), name, node))
        eventually("the namespace's account is there", lambda: api.find("ServiceAccount", name, "default"))
        return made[-1]

    yield make
    for space in made:
        for item in space.pods().values():  # also where no vnode is left to release them
            space.home.delete("Pod", space.name, item["metadata"]["name"], grace_s=0)
        api.delete("Namespace", "", space.name)


_number = itertools.count(1)


@pytest.fixture
def space(vnode: Vnode, peer_a: Cluster, new_space: Callable[..., Space]) -> Space:
    """A home namespace for one test whose Pods run at peer-a through edge-a."""
    assert "edge-a" in vnode.nodes
    made: Space = new_space(peer_a, "edge-a")
    return made


@pytest.fixture
def real_space(real_vnode: Vnode, real_peer: Cluster, new_space: Callable[..., Space]) -> Space:
    """A home namespace for one test whose Pods run in containers through edge-real."""
    assert "edge-real" in real_vnode.nodes
    made: Space = new_space(real_peer, "edge-real")
    return made


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows what vnode logged."""
    report = yield
    if report.failed:
        report.sections += log_tails()
    return report


def _end(cluster: Cluster) -> None:
    cluster.stop()
    # The logs are worth keeping as long as pytest keeps them; the databases are large and are not.
    shutil.rmtree(cluster.plane.directory / "etcd")
