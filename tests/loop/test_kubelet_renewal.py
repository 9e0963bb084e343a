"""In virtual time: a serving certificate from request to renewal, and the client CA as its source changes."""

import asyncio
import base64
import logging
import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.loop.wire import Answer, Wire, at_work
from vnode.kubelet import authority as authority_module
from vnode.kubelet.authority import REFUSED_RETRY_S, ClientAuthority
from vnode.kubelet.certificate import ServingCertificate, self_signed
from vnode.kubelet.server import server_context

START = datetime(2026, 5, 1, tzinfo=UTC)
DAY_S = 86_400
REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"

pytestmark = pytest.mark.looptime


def now() -> datetime:
    return START + timedelta(seconds=asyncio.get_running_loop().time())


@dataclass
class Signer:
    """Home with its signer: answers each request as `verdict` says, at once; certificates live ten days."""

    verdict: str = "issue"
    filed: list[float] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    requests: dict[str, dict[str, Any]] = field(default_factory=dict)
    decided: "asyncio.Queue[Any]" = field(default_factory=asyncio.Queue)

    async def __call__(self, method: str, path: str, body: Any) -> Answer:
        name = path.removeprefix(REQUESTS).removesuffix("&watch").strip("/")
        match method:
            case "POST" if self.verdict == "forbid":
                self.filed.append(asyncio.get_running_loop().time())
                return Answer({"message": "may not create", "reason": "Forbidden"}, 403)
            case "POST":
                self.filed.append(asyncio.get_running_loop().time())
                name = f"vnode-serving-{len(self.filed)}"
                meta = {"name": name, "uid": name, "resourceVersion": "7"}
                self.requests[name] = {"metadata": meta, "spec": body["spec"], "status": {}}
                answer = Answer(self.requests[name] | {"status": {}}, 201)
                self.decide(name)
                return answer
            case "DELETE":
                self.deleted.append(name)
                del self.requests[name]
                return Answer({})
            case _ if path.endswith("&watch"):
                return Answer(more=self.decided)
            case _ if not name:
                return Answer({"metadata": {"resourceVersion": "7"}, "items": list(self.requests.values())})
            case _:
                return Answer(self.requests[name]) if name in self.requests else Answer({}, 404)

    def decide(self, name: str) -> None:
        request = self.requests[name]
        version = int(request["metadata"]["resourceVersion"]) + 1
        request = self.requests[name] = request | {"metadata": request["metadata"] | {"resourceVersion": str(version)}}
        if self.verdict == "issue":
            request["status"] = {"certificate": base64.b64encode(issued(request["spec"]["request"])).decode()}
        elif self.verdict == "deny":
            request["status"] = {"conditions": [{"type": "Denied", "status": "True", "message": "not you"}]}
        self.decided.put_nowait({"type": "MODIFIED", "object": request})


def issued(request: str) -> bytes:
    asked = x509.load_pem_x509_csr(base64.b64decode(request))
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ca")])
    certificate = x509.CertificateBuilder(
        issuer, asked.subject, asked.public_key(), 1, now(), now() + timedelta(days=10)
    ).sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return certificate.public_bytes(serialization.Encoding.PEM)


def kind(certificate: ServingCertificate) -> str:
    return certificate.current.value.kind


async def test_a_certificate_is_served_from_its_issue_and_renewed_at_four_fifths_of_its_life() -> None:
    signer = Signer()
    certificate = ServingCertificate(Wire(signer), "edge", ["10.0.0.1"], now)
    first = certificate.current.value
    assert first.kind == "self-signed"
    async with at_work(certificate.run()):
        await asyncio.sleep(1)
        second = certificate.current.value
        assert second.kind == "signed"
        await asyncio.sleep(7.9 * DAY_S)
        assert certificate.current.value == second
        await asyncio.sleep(0.2 * DAY_S)
        assert kind(certificate) == "signed"
        assert certificate.current.value.key != second.key
    assert signer.filed == [0, pytest.approx(8 * DAY_S, abs=60)]
    assert signer.deleted == []


async def test_approval_is_waited_for_and_what_was_never_answered_is_withdrawn_at_the_next_start() -> None:
    signer = Signer(verdict="wait")
    async with at_work(ServingCertificate(Wire(signer), "edge", [], now).run()):
        await asyncio.sleep(3 * DAY_S)
    assert signer.filed == [0]
    certificate = ServingCertificate(Wire(signer), "edge", [], now)
    async with at_work(certificate.run()):
        await asyncio.sleep(DAY_S)
        assert signer.deleted == ["vnode-serving-1"]
        signer.verdict = "issue"
        signer.decide("vnode-serving-2")
        await asyncio.sleep(5)
        assert kind(certificate) == "signed"


@pytest.mark.parametrize(
    ("verdict", "message"),
    [("deny", "serving certificate was refused"), ("forbid", "no serving certificate from the cluster")],
)
async def test_a_refusal_is_told_once_and_asked_about_hourly(
    verdict: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    signer = Signer(verdict=verdict)
    certificate = ServingCertificate(Wire(signer), "edge", [], now)
    async with at_work(certificate.run()):
        await asyncio.sleep(5 * 3600 + 60)
        assert kind(certificate) == "self-signed"
        assert len(signer.filed) == 6
        signer.verdict = "issue"
        await asyncio.sleep(3600)
        assert kind(certificate) == "signed"
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == [message]


async def test_a_request_that_vanishes_is_filed_again() -> None:
    signer = Signer(verdict="wait")
    certificate = ServingCertificate(Wire(signer), "edge", [], now)
    async with at_work(certificate.run()):
        await asyncio.sleep(10)
        gone = signer.requests.pop("vnode-serving-1")
        signer.verdict = "issue"
        signer.decided.put_nowait({"type": "DELETED", "object": gone})
        await asyncio.sleep(10)
        assert kind(certificate) == "signed"


CA, NEXT = (self_signed(name, [name], START).certificate for name in ("ca", "next"))


async def test_the_published_client_ca_is_followed(caplog: pytest.LogCaptureFixture) -> None:
    data, changes = {"client-ca-file": CA}, asyncio.Queue[Any]()
    code = 403

    async def home(method: str, path: str, _: Any) -> Answer:
        meta = {"name": "extension-apiserver-authentication", "resourceVersion": "7"}
        if path.endswith("&watch"):
            assert path == "/api/v1/namespaces/kube-system/configmaps&watch"
            return Answer(more=changes)
        return Answer({"metadata": meta, "data": data, "message": "no"}, code)

    async def change(pem: str) -> str:
        data["client-ca-file"] = pem
        changes.put_nowait({"type": "MODIFIED", "object": {"metadata": {"resourceVersion": "8"}}})
        await asyncio.sleep(2)
        return authority.current.value

    authority = ClientAuthority(Wire(home))
    async with at_work(authority.run()):
        await asyncio.sleep(3 * REFUSED_RETRY_S + 1)
        assert authority.current.value == ""
        code = 200
        await asyncio.sleep(REFUSED_RETRY_S)
        assert authority.current.value == CA
        assert await change(NEXT) == NEXT
        assert await change("no certificate") == NEXT  # a slip of somebody's hand locks nobody out
        commented = await change(f"Zürich\n{CA}\nGenève\n{NEXT}")
        assert commented == CA + NEXT
        assert server_context(self_signed("edge", [], START), commented).verify_mode == ssl.CERT_OPTIONAL
        assert await change("") == ""
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == [
        "client CA is not readable, bearer tokens only",
        "client CA is not PEM, kept the old one",
    ]


@pytest.mark.looptime(False)
async def test_a_client_ca_file_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(authority_module, "REREAD_EVERY_S", 0.02)
    path = tmp_path / "ca.crt"
    path.write_bytes(f"Zürich\n{CA}".encode("latin-1"))

    async def nobody(*_: Any) -> Answer:
        raise AssertionError("a file needs no apiserver")

    authority, changed = ClientAuthority(Wire(nobody), str(path)), asyncio.Event()
    with authority.current.telling(changed):
        async with at_work(authority.run()), asyncio.timeout(10):
            for pem in (CA, NEXT):
                await changed.wait()
                changed.clear()
                assert authority.current.value == pem
                path.unlink()
                while not caplog.records:  # noqa: ASYNC110 - what is waited for knows no event
                    await asyncio.sleep(0.01)
                assert [record.message for record in caplog.records] == ["client CA cannot be read"]
                assert authority.current.value == pem  # a file that is being replaced locks nobody out
                caplog.clear()
                (tmp_path / "next.crt").write_text(NEXT)
                (tmp_path / "next.crt").rename(path)
