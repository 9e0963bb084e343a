"""Certificates: what is asked for, what is served, and whom a client certificate makes of its owner."""

import base64
import ipaddress
import ssl
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from vnode.kube.objects import from_dict
from vnode.kubelet.auth import User, authenticated, bearer_token, certificate_user
from vnode.kubelet.certificate import SIGNER, refused, request_manifest, self_signed, signing_request
from vnode.kubelet.server import server_context

NOW = datetime(2026, 5, 1, tzinfo=UTC)
NODE = "edge.example"


def test_the_request_is_what_the_signer_demands() -> None:
    key, pem = signing_request(NODE, [NODE, "10.0.0.1", "fd00::1"])
    manifest = request_manifest(NODE, pem)
    request = x509.load_pem_x509_csr(base64.b64decode(manifest["spec"]["request"]))
    assert manifest["spec"]["signerName"] == SIGNER == "kubernetes.io/kubelet-serving"
    assert manifest["spec"]["usages"] == ["digital signature", "server auth"]
    assert manifest["metadata"]["labels"] == {"vnode.dev/node": NODE}
    assert [(name.oid, name.value) for name in request.subject] == [
        (NameOID.ORGANIZATION_NAME, "system:nodes"),
        (NameOID.COMMON_NAME, f"system:node:{NODE}"),
    ]
    names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [NODE]
    assert names.get_values_for_type(x509.IPAddress) == [
        ipaddress.ip_address("10.0.0.1"),
        ipaddress.ip_address("fd00::1"),
    ]
    assert request.is_signature_valid
    assert request.public_key() == key.public_key()


def test_a_node_name_longer_than_a_common_name_is_asked_for_whole() -> None:
    node = "edge." + "x" * 80
    _, pem = signing_request(node, [node])
    request = x509.load_pem_x509_csr(pem)
    assert f"system:node:{node}".encode() in request.public_bytes(serialization.Encoding.DER)


def test_a_self_signed_chain_can_be_served_and_names_the_node() -> None:
    chain = self_signed("edge", ["edge", "127.0.0.1"], NOW)
    leaf = x509.load_pem_x509_certificate(chain.certificate.encode())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["edge"]
    assert leaf.not_valid_before_utc < NOW < leaf.not_valid_after_utc - timedelta(days=3000)
    assert "PRIVATE" not in repr(chain)
    context = server_context(chain, "")
    assert context.verify_mode == ssl.CERT_NONE
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert server_context(chain, chain.certificate).verify_mode == ssl.CERT_OPTIONAL


def test_denied_and_failed_requests_are_over_and_open_ones_are_not() -> None:
    def csr(*conditions: dict[str, str]) -> str:
        return refused(from_dict({"metadata": {"name": "a"}, "status": {"conditions": list(conditions)}}))

    assert csr() == ""
    assert csr({"type": "Approved", "status": "True"}) == ""
    assert csr({"type": "Denied", "status": "True", "reason": "No", "message": "not you"}) == "Denied: not you"
    assert csr({"type": "Failed", "status": "True", "reason": "SignerValidationFailure"}).startswith("Failed: Signer")
    assert refused(from_dict({"metadata": {"name": "a"}})) == ""


class Handshake:
    """The byte seam: what `ssl` tells of a connection."""

    def __init__(self, certificate: bytes | None, verify_mode: ssl.VerifyMode = ssl.CERT_OPTIONAL) -> None:
        self._certificate = certificate
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.verify_mode = verify_mode

    def getpeercert(self, *, binary_form: bool) -> bytes | None:
        return self._certificate


def client_certificate(common_names: list[str], organizations: list[str]) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization) for organization in organizations]
        + [x509.NameAttribute(NameOID.COMMON_NAME, common_name) for common_name in common_names]
    )
    return (
        x509.CertificateBuilder(name, name, key.public_key(), 1, NOW - timedelta(days=1), NOW + timedelta(days=1))
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )


def user(certificate: bytes | None, now: datetime = NOW, mode: ssl.VerifyMode = ssl.CERT_OPTIONAL) -> User | None:
    return certificate_user(Handshake(certificate, mode), now)  # type: ignore[arg-type]


def test_a_client_certificate_is_its_common_name_in_its_organizations() -> None:
    jane = client_certificate(["jane"], ["devs", "ops"])
    assert user(jane) == User("jane", groups=["devs", "ops", "system:authenticated"])


def test_no_certificate_an_expired_one_or_an_unverified_one_is_nobody() -> None:
    jane = client_certificate(["jane"], [])
    assert user(None) is None
    assert certificate_user(None, NOW) is None
    assert user(jane, NOW + timedelta(days=2)) is None
    assert user(jane, NOW - timedelta(days=2)) is None
    assert user(jane, mode=ssl.CERT_NONE) is None
    assert user(b"no certificate") is None
    assert user(client_certificate([], ["system:masters"])) is None


def test_of_several_common_names_the_last_counts_as_in_go() -> None:
    found = user(client_certificate(["system:admin", "jane"], []))
    assert found is not None
    assert found.username == "jane"


def test_everybody_known_is_authenticated_once() -> None:
    assert authenticated(User("a", groups=["system:authenticated"])).groups == ["system:authenticated"]
    assert authenticated(User("a", groups=["system:unauthenticated"])).groups == ["system:unauthenticated"]


def test_a_bearer_token_is_found_as_the_apiserver_finds_it() -> None:
    for header, token in {
        "Bearer abc": "abc",
        "bearer abc": "abc",
        "  BEARER abc  ": "abc",
        "Bearer abc def": "abc",
        "Bearer ": "",
        "Bearer  abc": "",
        "Bearer": "",
        "Basic abc": "",
        "": "",
        "Bearer \udcff": "",
    }.items():
        assert bearer_token(header) == token, header
