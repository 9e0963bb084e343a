"""exec, attach, cp, debug and port-forward through vnode, against the same straight at the peer, with real containers.

Every way there is: kubectl speaks WebSocket or, told so, SPDY; home's apiserver makes SPDY of a WebSocket for the Node
`edge-real`, and passes it on for `edge-ws`, which declares `ExtendWebSocketsToKubelet`.
"""

import asyncio
import hashlib
import http.client
import os
import random
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

import aiohttp
import pytest

from tests.expect import eventually
from tests.world.api import Api, Json
from tests.world.kubectl import SPDY, Done, Kubectl, KubeletPort, Terminal, read_line
from tests.world.manifests import pod, shell
from tests.world.vnodes import Space, Vnode, is_ready, peer_config
from vnode.devcluster.cluster import Cluster
from vnode.devcluster.images import BUSYBOX

SPACE = "streams"
FULL = os.environ.get("VNODE_TEST_SIZE") == "full"  # tests/README.md
COPIED = (200 if FULL else 20) * 2**20
BURSTS = 25 if FULL else 1  # for each way
HALF = 300_000
WAYS = ("translated-websocket", "translated-spdy", "passed-websocket", "passed-spdy")


SERVE = f"""mkdir -p /tmp/www; echo hello > /tmp/www/index.html; httpd -p 8080 -h /tmp/www
trap exit TERM; while true; do nc -l -p 9000 -e sh -c 'head -c {HALF} | wc -c' & wait; done"""
TALK = 'while read line; do echo "got $line"; done; trap exit TERM; while true; do sleep 0.1; done'
CONTAINERS = [
    shell(SERVE, name="app"),
    shell(TALK, name="talk", stdin=True),
    shell("exec sh", name="shell", stdin=True, tty=True),
]
SPEC: Json = {
    "initContainers": [shell("true", name="over")],
    "containers": CONTAINERS,
    "terminationGracePeriodSeconds": 0,
}


@pytest.fixture(scope="module")
def stage(home: Cluster, real_peer: Cluster, real_vnode: Vnode) -> Iterator[None]:
    """The Pods of these tests: `edge-real` and `edge-ws` at home, each on the node of its name, and `twin`, which is
    the peer's own."""
    here, there = Api(home.plane), Api(real_peer.plane)
    here.create({"kind": "Namespace", "metadata": {"name": SPACE}})
    eventually("the namespace's account is there", lambda: here.find("ServiceAccount", SPACE, "default"))
    for node in real_vnode.nodes:
        here.create(pod(node, node, **SPEC), SPACE)
    for node in real_vnode.nodes:
        eventually(f"{node} runs", lambda node=node: is_ready(here.find("Pod", SPACE, node)), 60)  # type: ignore[misc]
    there.create(pod("twin", "", **SPEC | {"nodeSelector": {}}), f"{SPACE}-world")
    eventually("the twin runs", lambda: is_ready(there.find("Pod", f"{SPACE}-world", "twin")), 60)
    yield
    there.delete("Pod", f"{SPACE}-world", "twin", grace_s=0)
    here.delete("Namespace", "", SPACE)


@pytest.fixture
def direct(stage: None, real_peer: Cluster) -> Kubectl:
    """kubectl straight at the peer, where edge-real's mirror is."""
    return Kubectl(real_peer.plane, f"{SPACE}-world", {})


@pytest.fixture(params=WAYS)
def way(stage: None, home: Cluster, request: pytest.FixtureRequest) -> tuple[Kubectl, str]:
    """kubectl at home, and the Pod to which it comes by that way."""
    mode, _, spoken = request.param.partition("-")
    env = SPDY if spoken == "spdy" else {}
    return Kubectl(home.plane, SPACE, env), "edge-ws" if mode == "passed" else "edge-real"


_told: dict[tuple[str, bytes], Done] = {}


def told(direct: Kubectl, script: str, data: bytes) -> Done:
    """What the peer says to a command, asked once."""
    if (script, data) not in _told:
        _told[script, data] = execute(direct, "edge-real", script, data)
    return _told[script, data]


def execute(kubectl: Kubectl, name: str, script: str, data: bytes) -> Done:
    return kubectl.run("exec", *(["-i"] if data else []), name, "-c", "app", "--", "sh", "-c", script, data=data)


@pytest.mark.parametrize(
    ("script", "data"),
    [
        ("printf 'out\\t\\0'; echo err >&2; exit 3", b""),
        ("md5sum; echo after the end of the input; echo err >&2", random.Random(1).randbytes(3 * 2**20)),
        ("kill -9 $$", b""),
        ("true", b""),
    ],
    ids=["output", "input", "killed", "nothing"],
)
def test_a_command_runs_as_it_does_at_the_peer(
    way: tuple[Kubectl, str], direct: Kubectl, script: str, data: bytes
) -> None:
    assert execute(*way, script, data) == told(direct, script, data)


def test_a_command_that_ends_at_once_after_much_output_loses_no_byte(way: tuple[Kubectl, str]) -> None:
    kubectl, name = way
    for _ in range(BURSTS):
        done = kubectl.run("exec", name, "-c", "app", "--", "head", "-c", "50000000", "/dev/zero")
        assert (done.code, len(done.out)) == (0, 50_000_000)


def at_a_terminal(kubectl: Kubectl, name: str) -> int:
    with Terminal(kubectl, "exec", "-it", name, "-c", "app", "--", "sh", rows=41, columns=101) as terminal:
        terminal.asked("stty size\n", r"\n41 101\r")
        terminal.resize(52, 132)
        terminal.asked("stty size\n", r"\n52 132\r")
        terminal.type("echo to the error >&2; exit 3\n")
        terminal.shows(r"\nto the error\r")
        return terminal.ended()


def test_a_terminal_has_its_size_and_its_exit_code(way: tuple[Kubectl, str], direct: Kubectl) -> None:
    assert at_a_terminal(*way) == at_a_terminal(direct, "edge-real") == 3


def test_a_terminal_is_attached_to(way: tuple[Kubectl, str], direct: Kubectl) -> None:
    for kubectl, name in (way, (direct, "twin")):
        with Terminal(kubectl, "attach", "-it", name, "-c", "shell", rows=41, columns=101) as terminal:
            terminal.asked("stty size\n", r"\n41 101\r")
            terminal.resize(52, 132)
            terminal.asked("stty size\n", r"\n52 132\r")


def test_a_container_is_attached_to_and_hears(way: tuple[Kubectl, str], direct: Kubectl) -> None:
    for kubectl, name in (way, (direct, "twin")):
        with kubectl.started("attach", "-i", name, "-c", "talk") as process:
            assert process.stdin is not None
            process.stdin.write(b"a line\n")
            process.stdin.flush()
            assert read_line(process) == b"got a line\n"


def test_files_are_copied_both_ways_unharmed(way: tuple[Kubectl, str], tmp_path: Path) -> None:
    kubectl, name = way
    there, back = tmp_path / "there", tmp_path / "back"
    with there.open("wb") as file:
        for _ in range(COPIED >> 20):
            file.write(random.randbytes(2**20))
    for args in ((there, f"{name}:/tmp/file"), (f"{name}:/tmp/file", back)):
        done = kubectl.run("cp", "-c", "app", *args)
        assert done.code == 0, done.err
    with there.open("rb") as one, back.open("rb") as other:
        assert hashlib.file_digest(one, "sha256").digest() == hashlib.file_digest(other, "sha256").digest()


def test_a_port_is_forwarded_for_a_hundred_connections_at_once(way: tuple[Kubectl, str]) -> None:
    kubectl, name = way

    def ask(connection: http.client.HTTPConnection) -> bytes:
        try:
            return connection.getresponse().read()
        finally:
            connection.close()

    with kubectl.forwarded(name, 8080) as port, ThreadPoolExecutor(100) as threads:
        connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=60) for _ in range(100)]
        list(threads.map(lambda connection: connection.request("GET", "/index.html"), connections))
        assert list(threads.map(ask, connections)) == [b"hello\n"] * 100


def test_one_half_of_a_forwarded_connection_closes_alone(way: tuple[Kubectl, str], direct: Kubectl) -> None:
    for kubectl, name in (way, (direct, "twin")):
        with (
            kubectl.forwarded(name, 9000) as port,
            socket.create_connection(("127.0.0.1", port), timeout=30) as connection,
        ):
            connection.sendall(b"x" * HALF)
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(100) == b"%d\n" % HALF


def test_what_cannot_be_done_is_told_as_by_the_peer(way: tuple[Kubectl, str], direct: Kubectl) -> None:
    kubectl, name = way
    for args in (
        ("exec", "POD", "-c", "app", "--", "/no/such/file"),
        ("exec", "POD", "-c", "over", "--", "true"),
        ("exec", "POD", "-c", "ghost", "--", "true"),
        ("attach", "POD", "-c", "over"),
        ("attach", "POD", "-c", "ghost"),
        ("port-forward", "pod/POD", "x"),
    ):
        here = kubectl.run(*(arg.replace("POD", name) for arg in args))
        there = direct.run(*(arg.replace("POD", "edge-real") for arg in args))
        assert said(here, name) == said(there, "edge-real"), args
        assert here.code != 0


def said(done: Done, name: str) -> tuple[int, str]:
    """Exit code and error, without what is each cluster's own; each apiserver may say once more that it is internal."""
    text = re.sub("[0-9a-f]{64}", "ID", done.err.decode()).replace("Internal error occurred: ", "")
    for own, word in ((name, "POD"), (f"{SPACE}-world", SPACE), (f"{SPACE}-ws", SPACE)):
        text = text.replace(own, word)
    return done.code, text


def debugged(kubectl: Kubectl, name: str) -> int:
    args = ("debug", "-it", name, "--image", BUSYBOX, "--target=app", "--", "sh")
    with Terminal(kubectl, *args, rows=41, columns=101) as terminal:
        terminal.asked("\nstty size\n", r"\n41 101\r")
        terminal.type("pidof httpd >/dev/null && echo sees the target; exit 3\n")
        terminal.shows(r"\nsees the target\r")
        return terminal.ended()


def test_a_container_is_debugged_by_one_that_is_added(way: tuple[Kubectl, str], direct: Kubectl) -> None:
    assert debugged(*way) == debugged(direct, "twin")


@pytest.mark.parametrize("name", ["edge-real", "edge-ws"])
async def test_a_web_socket_of_the_old_protocol_is_served(stage: None, home: Cluster, name: str) -> None:
    """Such a one comes to the port as it is, whatever the Node declares: the Python client speaks it, for one."""
    trust = ssl.create_default_context(cafile=str(home.plane.ca))
    trust.load_cert_chain(home.plane.directory / "admin.crt", home.plane.directory / "admin.key")
    script = ["sh", "-c", "read line; echo got $line; echo err >&2; exit 3"]
    streams = [("stdin", "true"), ("stdout", "true"), ("stderr", "true"), ("container", "app")]
    query = urlencode([*streams, *(("command", word) for word in script)])
    url = f"{home.plane.url}/api/v1/namespaces/{SPACE}/pods/{name}/exec?{query}"
    heard = dict.fromkeys(range(5), b"")
    async with (
        asyncio.timeout(30),
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust)) as session,
        session.ws_connect(url, protocols=("v4.channel.k8s.io",)) as connection,
    ):
        assert connection.protocol == "v4.channel.k8s.io"
        await connection.send_bytes(b"\0a line\n")
        async for message in connection:
            heard[message.data[0]] += message.data[1:]
    assert (heard[1], heard[2]) == (b"got a line\n", b"err\n")
    assert b'"reason":"ExitCode","message":"3"' in heard[3]


def test_a_command_whose_output_nobody_reads_stops_and_its_session_ends_with_its_reader(
    way: tuple[Kubectl, str], real_vnode: Vnode
) -> None:
    kubectl, name = way
    ended = partial(real_vnode.metric, "vnode_kubelet_requests_total", node=name, route="exec", code="101")
    before, written = ended(), list[bytes]()

    def stalled() -> bool:
        written.append(execute(kubectl, name, "grep wchar /proc/$(pidof yes)/io", b"").out)
        return len(written) > 1 and written[-1] == written[-2] > b"wchar: "

    with real_vnode.growing_less_than(16), kubectl.started("exec", name, "-c", "app", "--", "yes"):
        eventually("the command writes no more", stalled, each_s=0.5)
        assert ended() == before + len(written)
    eventually("the session has ended", lambda: ended() == before + len(written) + 1)
    execute(kubectl, name, "killall -9 yes", b"")  # whose runtime leaves it alone


STREAM = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1", "X-Stream-Protocol-Version": "v4.channel.k8s.io"}
FORWARD = STREAM | {"X-Stream-Protocol-Version": "portforward.k8s.io"}
SOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def test_its_port_answers_as_the_real_kubelets(stage: None, home: Cluster, real_peer: Cluster, tmp_path: Path) -> None:
    name, real = "edge-real", real_peer.real_nodes[0].name
    virtual = KubeletPort(home.plane, name, tmp_path), SPACE
    direct = KubeletPort(real_peer.plane, real, tmp_path), f"{SPACE}-world"
    uids = {
        space: Api(cluster.plane).get("Pod", space, name)["metadata"]["uid"]
        for cluster, (_, space) in ((home, virtual), (real_peer, direct))
    }
    run = "command=true&output=1"
    newer = [  # than what a kubelet before v1.36 takes without its apiserver
        ("GET", f"/exec/SPACE/POD/app?{run}", SOCKET | {"Sec-WebSocket-Protocol": "v5.channel.k8s.io"}),
        ("GET", "/portForward/SPACE/POD", SOCKET | {"Sec-WebSocket-Protocol": "SPDY/3.1+portforward.k8s.io"}),
    ]
    declared = real_peer.plane.get(f"/api/v1/nodes/{real}")["status"].get("declaredFeatures", ())
    for method, path, headers in (
        *(newer if "ExtendWebSocketsToKubelet" in declared else ()),
        ("POST", f"/exec/SPACE/POD/app?{run}", STREAM),
        ("GET", f"/exec/SPACE/POD/app?{run}", STREAM),
        ("GET", f"/exec/SPACE/POD/app?{run}", SOCKET | {"Sec-WebSocket-Protocol": "v4.channel.k8s.io"}),
        ("POST", f"/exec/SPACE/POD/UID/app?{run}", STREAM),
        ("POST", f"/exec/SPACE/POD/ghost?{run}", STREAM),
        ("POST", f"/exec/SPACE/POD/over?{run}", STREAM),
        ("POST", f"/exec/SPACE/ghost/app?{run}", STREAM),
        ("POST", f"/exec/SPACE/POD/app?{run}", {}),
        ("POST", "/exec/SPACE/POD/app?command=true", STREAM),
        ("POST", "/exec/SPACE/ghost/app", STREAM),
        ("POST", "/attach/SPACE/POD/app?output=1", STREAM),
        ("POST", "/attach/SPACE/POD/UID/app?output=1", STREAM),
        ("POST", "/attach/SPACE/POD/other/app?output=1", STREAM),
        ("POST", "/attach/SPACE/POD/ghost?output=1", STREAM),
        ("POST", "/attach/SPACE/POD/over?output=1", STREAM),
        ("POST", "/attach/SPACE/ghost/app?output=1", STREAM),
        ("POST", "/portForward/SPACE/POD", FORWARD),
        ("POST", "/portForward/SPACE/POD", STREAM),
        ("POST", "/portForward/SPACE/POD/UID", FORWARD),
        ("POST", "/portForward/SPACE/POD/other", STREAM),
        ("POST", "/portForward/SPACE/ghost", STREAM),
        ("GET", "/portForward/SPACE/POD", SOCKET | {"Sec-WebSocket-Protocol": "v4.channel.k8s.io"}),
        ("GET", "/portForward/SPACE/POD?port=80,0", SOCKET | {"Sec-WebSocket-Protocol": "v4.channel.k8s.io"}),
        ("GET", "/containerLogs/SPACE/POD/app", {}),
        ("GET", "/containerLogs/SPACE/POD/over?previous=true", {}),
        ("GET", "/containerLogs/SPACE/POD/ghost", {}),
        ("GET", "/containerLogs/SPACE/ghost/app", {}),
        ("GET", "/containerLogs/SPACE/ghost/app?tailLines=x", {}),
        ("GET", "/containerLogs/SPACE/POD/app?tailLines=-1", {}),
    ):
        answers = []
        for port, space in (virtual, direct):
            answer = port.ask(
                method, path.replace("SPACE", space).replace("POD", name).replace("UID", uids[space]), headers
            )
            answers.append((answer.status, answer.text.replace(space, "SPACE")))
        assert answers[0] == answers[1], (method, path, headers)
    # A kubelet does not look at the UID of an exec, and runs the command in a Pod that was not meant.
    other = virtual[0].ask("POST", f"/exec/{SPACE}/{name}/other/app?{run}", STREAM)
    assert other == (500, f"pod {name}_{SPACE} not found")


def test_a_vnode_that_is_stopped_ends_its_sessions(
    own_vnode: Callable[..., Vnode], new_space: Callable[..., Space], home: Cluster, real_peer: Cluster
) -> None:
    vnode = own_vnode(peer_config("edge-leaver", real_peer)).start().wait_ready()
    space = new_space(real_peer, "edge-leaver")
    space.create(pod("web", "edge-leaver", containers=[shell(SERVE)], terminationGracePeriodSeconds=0))
    space.wait_ready("web", limit_s=60)
    kubectl = Kubectl(home.plane, space.name, {})
    with (
        kubectl.started("exec", "web", "--", "sh", "-c", "echo up; sleep 1000") as command,
        Terminal(kubectl, "exec", "-it", "web", "--", "sh", rows=41, columns=101) as terminal,
        kubectl.started("port-forward", "pod/web", ":8080") as forward,
    ):
        assert read_line(command) == b"up\n"
        terminal.asked("stty size\n", r"\n41 101\r")
        read_line(forward)
        vnode.terminate(10)
        # With which exit code is kubectl's affair: of a stream that breaks off it says 0.
        terminal.ended(5)
        command.communicate(timeout=5)
        forward.communicate(timeout=30)  # kubectl asks every few seconds whether somebody is there
    assert [line for line in vnode.log_lines() if line["level"] not in ("info", "warning")] == []
    space.peer.delete("Namespace", "", space.remote)
