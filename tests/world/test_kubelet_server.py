"""A kubelet's port behind a real apiserver: the serving certificate, logs against direct ones, the door, the end."""

import contextlib
import datetime
import http.client
import os
import select
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.expect import eventually
from tests.world.kubelet_port import LOGS, NODE, Port, World, ask, port_world
from vnode.devcluster.build import Binaries
from vnode.devcluster.cluster import Cluster
from vnode.devcluster.controlplane import ControlPlane
from vnode.devcluster.kwok import write_log
from vnode.devcluster.pki import Authority, Pair


@pytest.fixture(scope="module")
def unapproved(binaries: Binaries, peer_a: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with port_world(binaries, tmp_path_factory.mktemp("kubelet"), peer_a.plane, kubelet_ca=True) as world:
        write_log(peer_a.kwok.log_file, [f"line {number} of a longer text" for number in range(50)])
        write_log(peer_a.kwok.log_file, ["an error"], stream="stderr")
        yield world


def requests(home: ControlPlane) -> list[str]:
    return home.kubectl("get", "csr", "-l", f"vnode.dev/node={NODE}", "-o", "name").stdout.split()


@pytest.fixture(scope="module")
def refusal(unapproved: World) -> str:
    """What the apiserver says of a port whose certificate nobody has signed."""
    return unapproved.home.kubectl("logs", "-n", "shop", "web-1", check=False).stderr


@pytest.fixture(scope="module")
def world(unapproved: World, refusal: str) -> World:
    """The world with the serving certificate approved, by an administrator's hand."""
    home = unapproved.home
    eventually("a request is filed", lambda: bool(requests(home)), 30)
    home.kubectl("certificate", "approve", *requests(home))
    logs = ("logs", "-n", "shop", "web-1", "--tail=1")
    eventually("the signed certificate serves", lambda: home.kubectl(*logs, check=False).returncode == 0, 30)
    return unapproved


def test_a_verifying_apiserver_takes_the_port_once_its_certificate_is_approved(refusal: str, world: World) -> None:
    assert "failed to verify certificate" in refusal
    trust = ssl.create_default_context(cafile=str(world.home.ca))
    for name in ("127.0.0.1", NODE):
        with (
            socket.create_connection(("127.0.0.1", world.port.port), timeout=10) as plain,
            trust.wrap_socket(plain, server_hostname=name) as connection,
        ):
            leaf = x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"")
            assert leaf.subject.rfc4514_string() == f"CN=system:node:{NODE},O=system:nodes"


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["--tail=0"],
        ["--tail=3"],
        ["--limit-bytes=100"],
        ["--since=1h"],
        ["--since-time=2020-01-01T00:00:00Z"],
        ["--since-time=2999-01-01T00:00:00Z"],
        ["--timestamps"],
        ["--timestamps", "--tail=2", "--limit-bytes=60"],
        ["--previous"],
        ["-c", "app", "--prefix=false"],
        ["--insecure-skip-tls-verify-backend"],
    ],
    ids=" ".join,
)
def test_logs_are_the_mirrors_byte_by_byte(world: World, args: list[str]) -> None:
    through = world.home.kubectl("logs", "-n", "shop", "web-1", *args).stdout
    assert through == world.peer.kubectl("logs", "-n", "shop-home", "web-1", *args).stdout


@contextlib.contextmanager
def following(world: World, *args: str) -> Iterator["subprocess.Popen[bytes]"]:
    kubectl = [str(world.home.binaries["kubectl"]), "--kubeconfig", str(world.home.kubeconfig)]
    command = [*kubectl, "logs", "-n", "shop", "-f", *args]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def next_line(process: "subprocess.Popen[bytes]", limit_s: float = 10) -> bytes:
    assert process.stdout is not None
    line = b""
    while not line.endswith(b"\n"):
        assert select.select([process.stdout], [], [], limit_s)[0], f"no line after {line!r}"
        more = os.read(process.stdout.fileno(), 1)
        assert more, f"the log ended after {line!r}"
        line += more
    return line


def test_followed_lines_arrive_as_they_are_written_and_a_reader_that_leaves_is_noticed(
    world: World, peer_a: Cluster
) -> None:
    left = world.port.answers("containerLogs", 499)
    with following(world, "web-1", "--tail=1") as reader:
        assert next_line(reader) == b"an error\n"
        for number in range(3):
            write_log(peer_a.kwok.log_file, [f"news {number}"])
            assert next_line(reader) == f"news {number}\n".encode()
    eventually("the stream ended", lambda: world.port.answers("containerLogs", 499) == left + 1, 10)


def test_a_pod_without_its_mirror_is_told_in_the_kubelets_words(world: World) -> None:
    done = world.home.kubectl("logs", "-n", "shop", "ghost", check=False)
    assert done.returncode == 1
    assert 'container "app" in pod "ghost" is not available' in done.stderr


def jane(world: World, directory: Path) -> http.client.HTTPSConnection:
    return world.port.connect(world.home.authority.issue("jane", ["devs"]), directory)


def test_nobody_gets_past_the_door(world: World) -> None:
    for path in (LOGS, "/healthz", "/metrics", "/pods", "/", "/nothing", "//", "/..", "/containerLogs/%2e%2e"):
        assert world.port.ask(path) == (401, "Unauthorized"), path
    for token in ("nonsense", world.token("reader")[:-4] + "AAAA"):
        assert world.port.ask(LOGS, token=token) == (401, "Unauthorized")


def test_a_user_without_the_right_is_forbidden_everywhere(world: World) -> None:
    token = world.token("nobody")
    nobody = "Forbidden (user=system:serviceaccount:shop:nobody"
    for path, subresources in ((LOGS, "proxy"), ("/healthz", "healthz proxy"), ("/metrics", "metrics")):
        wanted = f"{nobody}, verb=get, resource=nodes, subresource(s)=[{subresources}])\n"
        assert world.port.ask(path, token=token) == (403, wanted)
    assert world.port.ask("/nothing", token=token)[0] == 403
    assert world.port.ask("/containerLogs/shop/../x", token=token)[0] == 403


def test_a_user_with_the_right_reads_logs_but_cannot_run_commands(world: World) -> None:
    token = world.token("reader")
    assert world.port.ask(f"{LOGS}?tailLines=0", token=token) == (200, "")
    assert world.port.ask("/healthz", token=token) == (200, "ok")
    for method in ("GET", "POST"):  # upstream, get on nodes/proxy opens the GET
        code, text = world.port.ask("/exec/shop/web-1/app?command=id&output=1", method=method, token=token)
        assert (code, "verb=create" in text) == (403, True)
    for path in ("/attach/shop/web-1/app", "/portForward/shop/web-1"):
        assert world.port.ask(path, token=token)[0] == 403


def test_another_nodes_pod_is_not_found_and_path_tricks_lead_nowhere(world: World) -> None:
    token = world.token("reader")
    assert world.port.ask("/containerLogs/shop/stranger/app", token=token) == (404, 'pod "stranger" does not exist')
    assert world.port.ask("/containerLogs/default/web-1/app", token=token) == (404, 'pod "web-1" does not exist')
    for path in (
        "/containerLogs/default/../shop/web-1/app",
        "/containerLogs/shop/x/%2e%2e/web-1/app",
        "/containerLogs/shop/x%2f..%2fweb-1/app",
        "/containerLogs//web-1/app",
        "//containerLogs/shop/web-1/app",
        "/healthz/../containerLogs/shop/web-1/app",
        f"https://127.0.0.1{LOGS}",
    ):
        assert world.port.ask(path, token=token) == (400, "invalid path\n"), path
    assert world.port.ask("/podz", token=token) == (404, "404 page not found\n")
    assert world.port.ask(f"{LOGS}?tailLines=x", token=token) == (400, '{"message": "Unable to decode query."}')


def test_a_client_certificate_is_its_user(world: World, tmp_path: Path) -> None:
    with contextlib.closing(jane(world, tmp_path)) as connection:
        for _ in range(2):
            assert ask(connection, f"{LOGS}?tailLines=0") == (200, "")
        assert ask(connection, LOGS, method="HEAD") == (403, "")
    joe = world.home.authority.issue("joe")
    with contextlib.closing(world.port.connect(joe, tmp_path)) as connection:
        assert ask(connection, "/healthz") == (200, "ok")
        assert ask(connection, LOGS)[0] == 403


def turned_away(connection: http.client.HTTPSConnection) -> bool:
    """Whether the handshake fails; in TLS 1.3 a client learns that with its first read."""
    with contextlib.closing(connection):
        try:
            ask(connection, LOGS)
        except (ssl.SSLError, ConnectionError):
            return True
        return False


def forged(authority: Authority, *, usage: x509.ObjectIdentifier, age: datetime.timedelta) -> Pair:
    """A certificate of jane's that the CA did sign, but for another use or another time."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "jane")])
    issuer = x509.load_pem_x509_certificate(authority.cert)
    signer = serialization.load_pem_private_key(authority.pair.key, None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    lifetime = datetime.timedelta(hours=1)
    builder = x509.CertificateBuilder(issuer.subject, name, key.public_key(), 7, now - age, now - age + lifetime)
    signed = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False).sign(signer, hashes.SHA256())
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Pair(signed.public_bytes(pem), private)


def test_a_certificate_that_does_not_prove_a_client_is_no_user(world: World, tmp_path: Path) -> None:
    ours, second = world.home.authority, datetime.timedelta(seconds=60)
    bad = {
        "another CA": Authority("elsewhere").issue("jane"),
        "a CA of the same name": Authority(f"{world.home.name}-ca").issue("jane", ["system:masters"]),
        "the peer's CA": world.peer.authority.issue("jane"),
        "for servers": forged(ours, usage=ExtendedKeyUsageOID.SERVER_AUTH, age=second),
        "expired": forged(ours, usage=ExtendedKeyUsageOID.CLIENT_AUTH, age=datetime.timedelta(days=1)),
    }
    for what, pair in bad.items():
        assert turned_away(world.port.connect(pair, tmp_path)), what
    good = forged(ours, usage=ExtendedKeyUsageOID.CLIENT_AUTH, age=second)
    with contextlib.closing(world.port.connect(good, tmp_path)) as connection:
        assert ask(connection, f"{LOGS}?tailLines=0") == (200, "")


def test_who_came_by_a_ca_that_is_replaced_has_to_come_again(world: World, tmp_path: Path) -> None:
    authority, loop = world.port.authority.current, world.port.loop
    ours, other = authority.value, Authority("next").cert.decode()
    with contextlib.closing(jane(world, tmp_path)) as connection:
        assert ask(connection, f"{LOGS}?tailLines=0")[0] == 200
        loop.call_soon_threadsafe(authority.put, other)
        try:
            assert connection.sock is not None
            assert connection.sock.recv(1) == b""  # closed by the server
            assert turned_away(jane(world, tmp_path))
            # Tokens are not concerned.
            assert world.port.ask("/healthz", token=world.token("reader")) == (200, "ok")
        finally:
            loop.call_soon_threadsafe(authority.put, ours)
    with contextlib.closing(jane(world, tmp_path)) as connection:
        assert ask(connection, f"{LOGS}?tailLines=0")[0] == 200


def test_old_tls_is_not_spoken(world: World) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(("127.0.0.1", world.port.port), timeout=10) as plain,
        pytest.raises((ssl.SSLError, ConnectionError)),
        old.wrap_socket(plain),
    ):
        pass


def test_oversized_heads_are_refused(world: World) -> None:
    with contextlib.closing(world.port.connect(None, Path())) as connection:
        connection.request("GET", f"/{'x' * 100_000}")
        assert connection.getresponse().status == 400
    with contextlib.closing(world.port.connect(None, Path())) as connection:
        connection.request("GET", LOGS, headers={"Authorization": f"Bearer {'x' * 50_000}"})
        assert connection.getresponse().status == 400


def test_without_homes_verdict_nobody_gets_in(world: World) -> None:
    known, fresh = world.token("reader"), world.token("reader")
    assert world.port.ask("/healthz", token=known) == (200, "ok")
    world.home.kill("kube-apiserver")
    try:
        assert world.port.ask("/healthz", token=known) == (200, "ok")  # a kept verdict
        assert world.port.ask("/healthz", token=fresh) == (503, "authentication is not available")
        code, text = world.port.ask("/metrics", token=known)
        assert (code, text[:19]) == (500, "Authorization error")
    finally:
        world.home.start_component("kube-apiserver")
        world.home.wait_ready()
    assert world.port.ask("/healthz", token=fresh) == (200, "ok")


def test_a_restart_files_one_request_and_ends_followers_within_two_seconds(world: World) -> None:
    second = Port(world.home, world.peer)
    second.start()
    eventually("a request is filed", lambda: len(requests(world.home)) == 2, 30)
    second.stop()
    third = Port(world.home, world.peer)
    third.start()
    try:
        eventually("the old request is withdrawn", lambda: len(requests(world.home)) == 2, 30)
        with contextlib.closing(third.connect(None, Path())) as connection:
            connection.putrequest("GET", f"{LOGS}?follow=true")
            connection.putheader("Authorization", f"Bearer {world.token('reader')}")
            connection.endheaders()
            response = connection.getresponse()
            assert (response.status, len(response.read(4))) == (200, 4)
            third.stop(limit_s=2)
            # Cut, not ended: nobody is to take it for the whole log.
            with pytest.raises((http.client.IncompleteRead, OSError)):
                response.read()
    finally:
        if third.running:
            third.stop()
