"""Real clusters for the world tests, started once a session: `home`, `peer_a` and `peer_b` at once, `real_peer` when
first wanted.

Tests share them: make objects with names of your own, and do not stop what you did not start.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from vnode.devcluster.build import CONTROL_PLANE, Binaries, ensure_binaries
from vnode.devcluster.cluster import Cluster
from vnode.devcluster.controlplane import start_together
from vnode.devcluster.realnode import available

_BINARIES = (*CONTROL_PLANE, "kubelet", "kwok")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what is missing here and now: within a fixture it would fall under a test's timeout, and say nothing."""
    here = Path(__file__).parent
    if session.config.option.collectonly or not any(here in item.path.parents for item in session.items):
        return
    reporter = session.config.pluginmanager.getplugin("terminalreporter")
    ensure_binaries(_BINARIES, reporter.write_line if reporter else lambda _: None)


@pytest.fixture(scope="session")
def binaries() -> Binaries:
    """Every binary of a cluster, of the versions this checkout is for."""
    return ensure_binaries(_BINARIES, lambda _: None)


@dataclass(frozen=True)
class _World:
    home: Cluster
    peer_a: Cluster
    peer_b: Cluster


@pytest.fixture(scope="session")
def _world(binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[_World]:
    directory = tmp_path_factory.mktemp("world")
    clusters = [
        # One node at home as well: what must not run at a peer is to run somewhere.
        Cluster("home", directory / "home", binaries, index=0, simulated=1),
        Cluster("peer-a", directory / "peer-a", binaries, index=1, simulated=2),
        Cluster("peer-b", directory / "peer-b", binaries, index=2, simulated=2),
    ]
    start_together(clusters)
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
def real_peer(binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A peer cluster with one node where containers truly run; skips, with the reason, where that cannot be."""
    if reason := available():
        pytest.skip(reason)
    cluster = Cluster("real-peer", tmp_path_factory.mktemp("real-peer"), binaries, index=3, real=1)
    cluster.start()
    yield cluster
    _end(cluster)


def _end(cluster: Cluster) -> None:
    cluster.stop()
    # The logs are worth keeping as long as pytest keeps them; the databases are large and are not.
    shutil.rmtree(cluster.plane.directory / "etcd")
