"""The CA whose client certificates open a kubelet port, followed as it changes.

From the file of `kubelet.clientCA`, else from the ConfigMap in which every apiserver publishes its own
(`kube-system/extension-apiserver-authentication`, readable by the Role of that name). One per process, run by `app`
and shared by all nodes. Not here: what a certificate allows; that is `auth`.
"""

import asyncio
import contextlib
import logging
import ssl
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from vnode.errors import ApiError, Rejected
from vnode.kube.client import CONFIG_MAPS, Client
from vnode.kube.objects import Key
from vnode.kube.watch import Backoff
from vnode.kubelet.current import Current, versions

log = logging.getLogger(__name__)

PUBLISHED: Final = Key("kube-system", "extension-apiserver-authentication")
REREAD_EVERY_S: Final = 60.0
REFUSED_RETRY_S: Final = 600.0


class _ConfigMap(msgspec.Struct):
    data: dict[str, str] = {}


class ClientAuthority:
    """`current` is the CA bundle as PEM, "" while there is none: then client certificates are not asked for."""

    def __init__(self, home: Client, path: str = "") -> None:
        self._home = home
        self._path = path
        self._seen = ""
        self.current: Current[str] = Current("")

    async def run(self) -> None:
        """Keep `current` true until cancelled."""
        await (self._follow_file() if self._path else self._follow_published())

    async def _follow_file(self) -> None:
        told = ""
        while True:
            try:
                self._take(await asyncio.to_thread(Path(self._path).read_text, "utf-8", "replace"), self._path)
                told = ""
            except (OSError, RuntimeError) as error:  # RuntimeError: no thread to read it in
                if str(error) != told:
                    log.warning("client CA cannot be read", extra={"path": self._path, "error": str(error)})
                told = str(error)
            await asyncio.sleep(REREAD_EVERY_S)

    async def _follow_published(self) -> None:
        backoff, told = Backoff(base_s=1.0, cap_s=60.0), False
        while True:
            try:
                async with contextlib.aclosing(versions(self._home, CONFIG_MAPS, PUBLISHED)) as bundles:
                    async for raw in bundles:
                        data = msgspec.json.decode(raw, type=_ConfigMap).data if raw is not None else {}
                        self._take(data.get("client-ca-file", ""), str(PUBLISHED))
                        backoff.reset()
                        told = False
            except Rejected as error:
                if not told:
                    log.warning("client CA is not readable, bearer tokens only", extra={"error": error.message})
                told = True
                await asyncio.sleep(REFUSED_RETRY_S)
            except (ApiError, msgspec.MsgspecError) as error:
                log.info("client CA watch broke, will resume", extra={"error": str(error)})
                await asyncio.sleep(backoff.next())

    def _take(self, pem: str, origin: str) -> None:
        """Replace the bundle, unless the new one is no bundle: then the old goes on."""
        if pem == self._seen:
            return
        self._seen = pem
        if pem:
            try:
                pem = _certificates_alone(pem)
            except (ValueError, ssl.SSLError) as error:
                log.warning("client CA is not PEM, kept the old one", extra={"origin": origin, "error": str(error)})
                return
        log.info("client CA loaded" if pem else "client CA gone", extra={"origin": origin})
        self.current.put(pem)


def _certificates_alone(bundle: str) -> str:
    """The certificates of a bundle as `ssl` takes them: what stands between them may be in any script."""
    found = x509.load_pem_x509_certificates(bundle.encode())
    pem = "".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in found)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=pem)  # what fails is to fail here
    return pem
