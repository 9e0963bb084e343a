"""A kubelet's port behind a real apiserver: the serving certificate, logs against direct ones, the end.

The door is in `test_kubelet_door.py`.
"""

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

from tests.expect import eventually
from tests.world.kubelet_port import LOGS, NODE, Port, World, port_world
from vnode.devcluster.build import Binaries
from vnode.devcluster.cluster import Cluster
from vnode.devcluster.controlplane import ControlPlane
from vnode.devcluster.kwok import write_log
from vnode.kubelet import certificate


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
    for name in ("127.0.0.1", NODE):
        leaf = served(world, world.port, name)
        assert leaf.subject.rfc4514_string() == f"CN=system:node:{NODE},O=system:nodes"


def served(world: World, port: Port, name: str) -> x509.Certificate:
    """The certificate that a client gets which verifies it for `name`, as the apiserver does. Raises OSError."""
    trust = ssl.create_default_context(cafile=str(world.home.ca))
    with (
        socket.create_connection(("127.0.0.1", port.port), timeout=10) as plain,
        trust.wrap_socket(plain, server_hostname=name) as connection,
    ):
        return x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"")


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


def test_a_renewed_certificate_serves_who_comes_anew_and_running_streams_go_on(
    world: World, peer_a: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A signer's shortest life is ten minutes: renew what was just issued.
    monkeypatch.setattr(certificate, "RENEW_AT", 0.0)
    monkeypatch.setattr(certificate, "SOONEST", datetime.timedelta(seconds=2))
    before = set(requests(world.home))
    port = Port(world.home, world.peer)
    port.start()

    def serial() -> int:
        """Of the certificate that is served, once all that was asked for is approved."""
        if asked := set(requests(world.home)) - before:
            world.home.kubectl("certificate", "approve", *asked)
        try:
            return served(world, port, "127.0.0.1").serial_number
        except ssl.SSLError:  # it signed it itself
            return 0

    try:
        first = eventually("the port has a certificate", serial, 30)
        with contextlib.closing(port.connect(None, Path())) as connection:
            connection.putrequest("GET", f"{LOGS}?follow=true&tailLines=1")
            connection.putheader("Authorization", f"Bearer {world.token('reader')}")
            connection.endheaders()
            stream = connection.getresponse()
            assert stream.readline()
            eventually("the port has another certificate", lambda: serial() not in (0, first), 30)
            write_log(peer_a.kwok.log_file, ["after the renewal"])
            assert stream.readline() == b"after the renewal\n"
    finally:
        port.stop()
        world.home.kubectl("delete", *(set(requests(world.home)) - before))


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
