"""exec, attach, cp and port-forward through a kubelet's port, against the same at the peer, with real containers.

Both ways an apiserver speaks to a kubelet: SPDY, and since v1.36 WebSocket where the Node declares
`ExtendWebSocketsToKubelet`.
"""

import contextlib
import hashlib
import http.client
import json
import os
import random
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.expect import eventually
from tests.world.kubelet_port import NODE, World, port_world
from vnode.devcluster.build import Binaries
from vnode.devcluster.cluster import Cluster
from vnode.devcluster.controlplane import ControlPlane

SPDY_ONLY = {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "false", "KUBECTL_PORT_FORWARD_WEBSOCKETS": "false"}


@pytest.fixture(scope="module")
def world(binaries: Binaries, real_peer: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with port_world(binaries, tmp_path_factory.mktemp("streams"), real_peer.plane, kubelet_ca=False) as world:
        # kubectl looks at the phase before it forwards a port, and at the container before it attaches.
        running = {"name": "app", "ready": True, "restartCount": 0, "image": "i", "imageID": "i"}
        status = {
            "phase": "Running",
            "containerStatuses": [running | {"state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}],
        }
        patch = (
            "patch",
            "pod",
            "-n",
            "shop",
            "--subresource=status",
            "--type=merge",
            "-p",
            json.dumps({"status": status}),
        )
        for name in ("web-1", "ghost"):
            world.home.kubectl(*patch, name)
        yield world


@pytest.fixture(params=["spdy", "websocket"], scope="module")
def env(world: World, request: pytest.FixtureRequest) -> dict[str, str]:
    """kubectl's environment, with the apiserver set to speak that to the port."""
    declared = ["ExtendWebSocketsToKubelet"] if request.param == "websocket" else None
    patch = json.dumps({"status": {"declaredFeatures": declared}})
    world.home.kubectl("patch", "node", NODE, "--subresource=status", "--type=merge", "-p", patch)
    return {} if request.param == "websocket" else SPDY_ONLY


def kubectl(
    plane: ControlPlane, *args: str, env: dict[str, str], data: bytes = b""
) -> "subprocess.CompletedProcess[bytes]":
    command = [str(plane.binaries["kubectl"]), "--kubeconfig", str(plane.kubeconfig), *args]
    return subprocess.run(command, input=data, capture_output=True, timeout=60, check=False, env={**os.environ, **env})


@pytest.mark.parametrize(
    ("shell", "data"),
    [
        ("echo out; echo err >&2", b""),
        ("exit 3", b""),
        ("cat", b"some text\n"),
        ("wc -c", random.randbytes(3 * 2**20)),
        ("head -c 20000000 /dev/zero | md5sum", b""),
        ("printf 'a b\\tc\\n\\0'; false", b""),
        ("kill -9 $$", b""),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{len(value)} bytes in",
)
def test_a_command_runs_as_it_does_at_the_peer(world: World, env: dict[str, str], shell: str, data: bytes) -> None:
    flags = ["-i"] if data else []
    through = kubectl(world.home, "exec", *flags, "-n", "shop", "web-1", "--", "sh", "-c", shell, env=env, data=data)
    direct = kubectl(
        world.peer, "exec", *flags, "-n", "shop-home", "web-1", "--", "sh", "-c", shell, env=env, data=data
    )
    assert (through.returncode, through.stdout, through.stderr) == (direct.returncode, direct.stdout, direct.stderr)


def test_a_command_that_ends_at_once_after_much_output_loses_no_byte(world: World, env: dict[str, str]) -> None:
    for _ in range(2):
        done = kubectl(world.home, "exec", "-n", "shop", "web-1", "--", "head", "-c", "50000000", "/dev/zero", env=env)
        assert (done.returncode, len(done.stdout)) == (0, 50_000_000)


def test_files_are_copied_both_ways_unharmed(world: World, env: dict[str, str], tmp_path: Path) -> None:
    there, back = tmp_path / "there", tmp_path / "back"
    there.write_bytes(random.randbytes(20 * 2**20))
    for args in ((str(there), "shop/web-1:/tmp/file"), ("shop/web-1:/tmp/file", str(back))):
        done = kubectl(world.home, "cp", *args, env=env)
        assert done.returncode == 0, done.stderr
    assert hashlib.sha256(back.read_bytes()).digest() == hashlib.sha256(there.read_bytes()).digest()


def test_ports_are_forwarded_for_many_connections(world: World, env: dict[str, str]) -> None:
    serve = "mkdir -p /tmp/www && echo hello > /tmp/www/index.html && httpd -p 8080 -h /tmp/www"
    kubectl(world.home, "exec", "-n", "shop", "web-1", "--", "sh", "-c", serve, env=env)
    command = [str(world.home.binaries["kubectl"]), "--kubeconfig", str(world.home.kubeconfig), "port-forward"]
    with subprocess.Popen(
        [*command, "-n", "shop", "pod/web-1", ":8080"], stdout=subprocess.PIPE, env={**os.environ, **env}, text=True
    ) as forward:
        try:
            assert forward.stdout is not None
            found = re.search(r"127\.0\.0\.1:(\d+)", forward.stdout.readline())
            assert found is not None
            connections = [http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=20) for _ in range(20)]
            for connection in connections:
                connection.request("GET", "/index.html")
            for connection in connections:
                with contextlib.closing(connection):
                    assert connection.getresponse().read() == b"hello\n"
        finally:
            forward.kill()


def test_a_container_is_attached_to(world: World, env: dict[str, str]) -> None:
    command = [str(world.home.binaries["kubectl"]), "--kubeconfig", str(world.home.kubeconfig)]
    before = world.port.answers("attach", 101)
    with subprocess.Popen([*command, "attach", "-n", "shop", "web-1"], env={**os.environ, **env}) as attach:
        opened = ("exec", "-n", "shop", "web-1", "--", "true")
        assert kubectl(world.home, *opened, env=env).returncode == 0
        eventually("it is attached", lambda: attach.poll() is None)
        attach.kill()
    eventually("the session ended", lambda: world.port.answers("attach", 101) == before + 1)


def test_refusals_are_the_peers(world: World, env: dict[str, str]) -> None:
    ghost = kubectl(world.home, "exec", "-n", "shop", "ghost", "--", "true", env=env)
    assert ghost.returncode == 1
    assert b'pods "ghost" not found' in ghost.stderr
    stranger = kubectl(world.home, "exec", "-n", "shop", "stranger", "--", "true", env=env)
    assert stranger.returncode == 1
    assert b"pod does not exist" in stranger.stderr
    nothing = ("exec", "web-1", "-n")
    through = kubectl(world.home, *nothing, "shop", "--", "/no/such/file", env=env)
    direct = kubectl(world.peer, *nothing, "shop-home", "--", "/no/such/file", env=env)
    assert through.returncode == direct.returncode == 1
    # The runtime names each exec, and each apiserver on the way may say "Internal error occurred" once more.
    assert runtime_error(through) == runtime_error(direct)


def runtime_error(done: "subprocess.CompletedProcess[bytes]") -> str:
    return re.sub("[0-9a-f]{64}", "ID", done.stderr.decode()).replace("Internal error occurred: ", "")
