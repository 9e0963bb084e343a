"""The serving certificate of one kubelet port: self-signed at once, the cluster's own as soon as somebody approves.

The request is a CertificateSigningRequest for the signer `kubernetes.io/kubelet-serving`, as kubelets make it
(k8s.io/kubernetes v1.37 pkg/apis/certificates/helpers.go). We never approve it ourselves: an approver must judge
whether this address may call itself that node. Keys live in memory only, so each start asks anew.
Run by `server`, which serves new handshakes with whatever `current` is.
"""

import asyncio
import base64
import contextlib
import ipaddress
import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Literal

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from vnode.errors import ApiError, NotFound, Rejected
from vnode.kube.client import SIGNING_REQUESTS, Client
from vnode.kube.objects import Key, Object, parse_list, parse_object, utc_now
from vnode.kube.watch import Backoff
from vnode.kubelet.current import Current, versions
from vnode.names import ORIGIN_NODE

log = logging.getLogger(__name__)

SIGNER: Final = "kubernetes.io/kubelet-serving"
USAGES: Final = ["digital signature", "server auth"]  # EC: no key encipherment
SELF_SIGNED_LIFE: Final = timedelta(days=3650)  # nobody checks it, and a restart makes a new one
RENEW_AT: Final = 0.8
SOONEST: Final = timedelta(minutes=1)  # however short-lived the signer makes them
AGAIN: Final = timedelta(hours=1)  # after a refusal or a denial
LONGEST_SLEEP_S: Final = 3600.0  # the loop's clock stands still while a machine sleeps, certificates do not

Kind = Literal["self-signed", "signed"]


@dataclass(frozen=True, slots=True)
class Chain:
    """A certificate chain and its key, both PEM."""

    kind: Kind
    certificate: str
    key: str = field(repr=False)


class ServingCertificate:
    """The chain of one node's port. `addresses` (IPs or DNS names) are what the apiserver dials."""

    def __init__(
        self, home: Client, node: str, addresses: Sequence[str], now: Callable[[], datetime] = utc_now
    ) -> None:
        self._home = home
        self._node = node
        self._names = list(dict.fromkeys((node, *addresses)))
        self._now = now
        self._told = ""
        self.current: Current[Chain] = Current(self_signed(node, self._names, now()))

    async def run(self) -> None:
        """Ask, wait for the answer, renew, until cancelled."""
        log.info("serving certificate is self-signed", extra=self._facts())
        backoff = Backoff(base_s=1.0, cap_s=300.0)
        while True:
            try:
                key, request = signing_request(self._node, self._names)
                issued = await self._ask(request)
            except Rejected as error:
                # Rights may be given later: ask again, but tell it once.
                self._tell("no serving certificate from the cluster", error=error.message)
                issued = None
            except (ApiError, msgspec.MsgspecError) as error:
                log.info("serving certificate request broke, will retry", extra=self._facts(error=str(error)))
                await asyncio.sleep(backoff.next())
                continue
            backoff.reset()
            again = (self._take(issued, key) if issued else None) or self._now() + AGAIN
            while (rest := (again - self._now()).total_seconds()) > 0:  # noqa: ASYNC110 - time itself is awaited
                await asyncio.sleep(min(rest, LONGEST_SLEEP_S))

    async def _ask(self, request: bytes) -> str | None:
        """File a request and wait for its end: the chain as PEM, or None when it was denied or has failed."""
        await self._withdraw()
        manifest = request_manifest(self._node, request)
        name = parse_object(await self._home.create(SIGNING_REQUESTS, "", manifest)).meta.name
        log.info("serving certificate requested, waiting for approval", extra=self._facts(csr=name))
        async with contextlib.aclosing(versions(self._home, SIGNING_REQUESTS, Key("", name))) as stages:
            async for raw in stages:
                if raw is None:  # the controller manager cleans up after a day without an answer
                    raise NotFound(f"request {name} was deleted unanswered", 404)
                csr = parse_object(raw)
                if refusal := refused(csr):
                    self._tell("serving certificate was refused", csr=name, error=refusal)
                    return None
                if chain := csr.status().get("certificate"):
                    return base64.b64decode(chain).decode()
        raise AssertionError("versions() has no end")

    async def _withdraw(self) -> None:
        """Delete what an earlier run asked for and nobody answered: its key is lost."""
        page = await self._home.list_page(SIGNING_REQUESTS, "", {"labelSelector": f"{ORIGIN_NODE}={self._node}"})
        for csr in parse_list(page)[0]:
            if not csr.status().get("certificate") and not csr.status().get("conditions"):
                with contextlib.suppress(NotFound):
                    await self._home.delete(SIGNING_REQUESTS, csr.key, uid=csr.uid)

    def _take(self, chain: str, key: ec.EllipticCurvePrivateKey) -> datetime | None:
        """Serve with this chain from now on; returns when to ask for the next, None when it is of no use."""
        try:
            leaf = x509.load_pem_x509_certificates(chain.encode())[0]
        except ValueError as error:
            self._tell("serving certificate cannot be read", error=str(error))
            return None
        if leaf.public_key() != key.public_key():
            self._tell("serving certificate is not for our key")
            return None
        self.current.put(Chain("signed", chain, _pem(key)))
        log.info("serving certificate is signed", extra=self._facts(until=leaf.not_valid_after_utc.isoformat()))
        self._told = ""
        life = leaf.not_valid_after_utc - leaf.not_valid_before_utc
        return max(leaf.not_valid_before_utc + RENEW_AT * life, self._now() + SOONEST)

    def _tell(self, message: str, **facts: Any) -> None:
        """Log what a human may act on, once until something else is to be told."""
        if message != self._told:
            log.warning(message, extra=self._facts(**facts))
        self._told = message

    def _facts(self, **facts: Any) -> dict[str, Any]:
        return {"node": self._node, **facts}


def signing_request(node: str, names: Sequence[str]) -> tuple[ec.EllipticCurvePrivateKey, bytes]:
    """A new key and the PKCS#10 request for it, PEM, with the subject the signer demands."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder(_subject(node), [_alternatives(names)]).sign(key, hashes.SHA256())
    return key, request.public_bytes(serialization.Encoding.PEM)


def request_manifest(node: str, request: bytes) -> dict[str, Any]:
    """The CertificateSigningRequest for it."""
    return {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"generateName": "vnode-serving-", "labels": {ORIGIN_NODE: node}},
        "spec": {"request": base64.b64encode(request).decode(), "signerName": SIGNER, "usages": USAGES},
    }


def refused(csr: Object) -> str:
    """Why a request was denied or has failed; "" while it is open or approved."""
    for condition in csr.status().get("conditions") or ():
        if condition.get("type") in ("Denied", "Failed") and condition.get("status") == "True":
            return f"{condition['type']}: {condition.get('message') or condition.get('reason', '')}"
    return ""


def self_signed(node: str, names: Sequence[str], now: datetime) -> Chain:
    """A chain that encrypts and proves nothing; enough for an apiserver that verifies no kubelet."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder(_subject(node), _subject(node), key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + SELF_SIGNED_LIFE)
        .add_extension(_alternatives(names).value, critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Chain("self-signed", certificate.public_bytes(serialization.Encoding.PEM).decode(), _pem(key))


def _subject(node: str) -> x509.Name:
    # X.520 stops at 64 characters, Node names do not; kubelets and the signer do not mind.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        common_name = x509.NameAttribute(NameOID.COMMON_NAME, f"system:node:{node}", _validate=False)
    return x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"), common_name])


def _alternatives(names: Sequence[str]) -> x509.Extension[x509.SubjectAlternativeName]:
    return x509.Extension(
        x509.SubjectAlternativeName.oid, False, x509.SubjectAlternativeName([_general_name(name) for name in names])
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
