"""The door of a kubelet's port, and of a real kubelet's: who gets which answer where, by certificate and by token.

The port runs in this process (`kubelet_port.Port`), asked directly; tokens, rights and the client CA are home's. The
real kubelet is asked the same, so that the table is not only our reading of it.
"""

import contextlib
import datetime
import json
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.expect import eventually
from tests.world.door import TABLE, Row, Side, expected_codes, rbac, tokens_of
from tests.world.kubelet_port import LOGS, VNODE_RIGHTS, Port, apply, ask, namespace, pod, wait_for_account
from vnode.devcluster.cluster import Cluster
from vnode.devcluster.controlplane import ControlPlane
from vnode.devcluster.kwok import write_log
from vnode.devcluster.pki import Authority, Pair

each_row = pytest.mark.parametrize("row", TABLE, ids=lambda row: row.request[:60])


def delete(plane: ControlPlane, *objects: dict[str, Any]) -> None:
    items = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
    plane.kubectl("delete", "--wait=false", "--ignore-not-found", "-f", "-", input=items)


@pytest.fixture(scope="module")
def port(home: Cluster, peer_a: Cluster) -> Iterator[Port]:
    node = next(
        item["metadata"]["name"]
        for item in peer_a.plane.get("/api/v1/nodes")["items"]
        if item["metadata"]["name"].startswith("peer-a")
    )
    ours, theirs = [*rbac(), *VNODE_RIGHTS], [namespace("door")]
    apply(home.plane, *ours)
    apply(peer_a.plane, *theirs)
    wait_for_account(peer_a.plane, "door")
    write_log(peer_a.kwok.log_file, ["a line"])
    apply(peer_a.plane, pod("door", "web-1", node))
    peer_a.plane.kubectl("wait", "--for=condition=Ready", "pod/web-1", "-n", "door", "--timeout=50s")
    port = Port(home.plane, peer_a.plane, remote="door")
    port.start()
    eventually("the client CA is there", lambda: port.authority.current.value)
    try:
        yield port
    finally:
        port.stop()
        delete(home.plane, *ours)
        delete(peer_a.plane, *theirs)


@pytest.fixture(scope="module")
def ours(port: Port, home: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Side:
    return Side(home.plane, "127.0.0.1", port.port, tokens_of(home.plane), tmp_path_factory.mktemp("door"))


@pytest.fixture(scope="module")
def kubelet(real_peer: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Side]:
    """A real one, with `shop/web-1` on it."""
    plane, node = real_peer.plane, real_peer.real_nodes[0].name
    apply(plane, *rbac())
    wait_for_account(plane, "shop")
    apply(plane, pod("shop", "web-1", node))
    plane.kubectl("wait", "--for=condition=Ready", "pod/web-1", "-n", "shop", "--timeout=60s")
    status = plane.get(f"/api/v1/nodes/{node}")["status"]
    address = next(each["address"] for each in status["addresses"] if each["type"] == "InternalIP")
    number = status["daemonEndpoints"]["kubeletEndpoint"]["Port"]
    yield Side(plane, address, number, tokens_of(plane), tmp_path_factory.mktemp("door-kubelet"))
    delete(plane, *rbac())


@each_row
def test_each_path_answers_each_who_asks(ours: Side, row: Row) -> None:
    expected = expected_codes(row.answers)
    assert {who: answer.code for who, answer in ours.answers(row.request).items()} == expected
    assert ours.code(Authority("elsewhere").issue("jane", ["system:masters"]), row.request.split(" ")[1]) == 0


@each_row
def test_a_kubelet_answers_the_same_but_where_the_table_says_so(kubelet: Side, ours: Side, row: Row) -> None:
    found = kubelet.answers(row.request)
    if row.kubelet and " " not in row.kubelet:
        assert {answer.code for answer in found.values()} == {int(row.kubelet)}
        return
    assert {who: answer.code for who, answer in found.items()} == expected_codes(row.kubelet or row.answers)
    if not row.kubelet:
        said = {who: answer for who, answer in ours.answers(row.request).items() if answer.code >= 400}
        assert said == {who: answer for who, answer in found.items() if answer.code >= 400}


def test_a_verdict_is_a_kubelets_word_for_word(ours: Side, kubelet: Side) -> None:
    for side in (ours, kubelet):
        answers = side.answers("GET /healthz")
        assert answers["anonymous"].text == "Unauthorized"
        name = "system:serviceaccount:shop:nobody"
        wanted = f"Forbidden (user={name}, verb=get, resource=nodes, subresource(s)=[healthz proxy])\n"
        assert answers["nobody"].text == wanted


def forged(authority: Authority, *, usage: x509.ObjectIdentifier, age: datetime.timedelta) -> Pair:
    """A certificate of jane's that the CA did sign, but for another use or another time."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "jane")])
    issuer = x509.load_pem_x509_certificate(authority.cert)
    signer = serialization.load_pem_private_key(authority.pair.key, None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    lifetime = datetime.timedelta(hours=1)
    builder = x509.CertificateBuilder(issuer.subject, name, key.public_key(), 7, now - age, now - age + lifetime)
    certificate = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False).sign(signer, hashes.SHA256())
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Pair(certificate.public_bytes(pem), private)


def client_certificates(plane: ControlPlane) -> dict[str, tuple[Pair, bool]]:
    """Certificates of jane's, and whether they prove it."""
    second, day = datetime.timedelta(seconds=60), datetime.timedelta(days=1)
    client, server = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
    return {
        "good": (plane.authority.issue("jane", ["devs"]), True),
        "good, made by hand": (forged(plane.authority, usage=client, age=second), True),
        "of another CA": (Authority("elsewhere").issue("jane"), False),
        "of a CA of the same name": (Authority(f"{plane.name}-ca").issue("jane", ["system:masters"]), False),
        "for servers": (forged(plane.authority, usage=server, age=second), False),
        "expired": (forged(plane.authority, usage=client, age=day), False),
        "of tomorrow": (forged(plane.authority, usage=client, age=-day), False),
    }


def test_a_client_certificate_is_its_user(ours: Side) -> None:
    for what, (pair, proves) in client_certificates(ours.plane).items():
        # Python's ssl ends the handshake with who comes with a bad one; a kubelet hears them out and says 401.
        assert ours.code(pair) == (200 if proves else 0), what
    with contextlib.closing(ours.connect(ours.plane.authority.issue("jane"))) as connection:
        for _ in range(2):
            assert ask(connection, f"{LOGS}?tailLines=0") == (200, "")
        assert ask(connection, "/metrics")[0] == 403
    assert ours.code(ours.plane.authority.issue("joe")) == 403


def test_a_kubelet_takes_the_same_client_certificates(kubelet: Side) -> None:
    for what, (pair, proves) in client_certificates(kubelet.plane).items():
        assert kubelet.code(pair) == (200 if proves else 401), what
    assert kubelet.code(kubelet.plane.authority.issue("joe")) == 403


def test_the_published_client_ca_is_followed_and_who_came_by_one_that_goes_has_to_come_again(
    ours: Side, port: Port, home: Cluster
) -> None:
    jane, mary = home.plane.authority.issue("jane"), (another := Authority("another")).issue("jane")
    published = home.plane.get("/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication")["data"]

    def publish(bundle: str) -> None:
        patch = json.dumps({"data": {"client-ca-file": bundle}})
        name = ("configmap", "extension-apiserver-authentication", "-n", "kube-system")
        home.plane.kubectl("patch", *name, "--type=merge", "-p", patch)

    assert ours.code(mary) == 0
    try:
        publish(published["client-ca-file"] + another.cert.decode())
        eventually("the other CA's are let in", lambda: ours.code(mary) == 200)
        with contextlib.closing(ours.connect(mary)) as connection:
            assert ask(connection, f"{LOGS}?tailLines=0")[0] == 200
            publish(published["client-ca-file"])
            assert connection.sock is not None
            assert connection.sock.recv(1) == b""  # closed by the server
        eventually("the other CA's are refused", lambda: ours.code(mary) == 0)
    finally:
        publish(published["client-ca-file"])
    assert ours.code(jane) == 200
    assert ours.answers("GET /healthz")["reader"].code == 200


def test_a_configured_client_ca_stands_in_for_the_published_one(
    ours: Side, home: Cluster, peer_a: Cluster, tmp_path: Path
) -> None:
    own = Authority("own")
    (tmp_path / "ca.crt").write_bytes(own.cert)
    port = Port(home.plane, peer_a.plane, remote="door", client_ca=str(tmp_path / "ca.crt"))
    port.start()
    try:
        side = Side(home.plane, "127.0.0.1", port.port, ours.tokens, tmp_path)
        eventually("the CA is read", lambda: side.code(own.issue("jane")) == 200)
        assert side.code(home.plane.authority.issue("jane")) == 0
        assert side.answers("GET /healthz")["reader"].code == 200
    finally:
        port.stop()


class Offer(NamedTuple):
    """A client's only offer, and whether we and a kubelet take it."""

    version: ssl.TLSVersion
    ciphers: str
    ours: bool
    kubelet: bool


V1_1, V1_2, V1_3 = ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
OFFERS = [
    Offer(V1_1, "ALL", False, False),
    Offer(V1_2, "ECDHE-ECDSA-AES128-GCM-SHA256", True, True),
    Offer(V1_2, "ECDHE-ECDSA-AES256-GCM-SHA384", True, True),
    Offer(V1_2, "ECDHE-ECDSA-CHACHA20-POLY1305", True, True),
    Offer(V1_2, "ECDHE-ECDSA-AES128-SHA", False, True),  # CBC; Go has it for the sake of old clients
    Offer(V1_2, "ECDHE-ECDSA-AES128-SHA256", False, False),
    Offer(V1_2, "AES128-GCM-SHA256:AES128-SHA", False, False),  # no forward secrecy
    Offer(V1_2, "aNULL:eNULL", False, False),
    Offer(V1_3, "ALL", True, True),
]
each_offer = pytest.mark.parametrize("offer", OFFERS, ids=lambda offer: f"{offer.version.name} {offer.ciphers}")


@each_offer
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1:DeprecationWarning")
def test_old_tls_and_weak_ciphers_are_not_spoken(ours: Side, offer: Offer) -> None:
    assert agreed(ours, offer) == offer.ours


@each_offer
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1:DeprecationWarning")
def test_a_kubelet_speaks_no_less(kubelet: Side, offer: Offer) -> None:
    assert agreed(kubelet, offer) == offer.kubelet


def agreed(side: Side, offer: Offer) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers(f"{offer.ciphers}:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = offer.version
    with socket.create_connection((side.address, side.port), timeout=10) as plain:
        try:
            context.wrap_socket(plain).close()
        except (ssl.SSLError, ConnectionError):
            return False
    return True
