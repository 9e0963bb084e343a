"""TLS contexts from PEM texts in memory. Called by `credentials`, and by the kubelet port for its own certificate."""

import os
import ssl
import tempfile
from collections.abc import Mapping
from typing import Any


def client_context(settings: Mapping[str, Any]) -> ssl.SSLContext:
    """A context to dial an apiserver with, of PEM texts `ca`, `cert` and `key`; `insecure`: whoever it is.

    Raises ssl.SSLError, OSError or ValueError for certificates that cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if settings.get("insecure"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif settings.get("ca"):
        # Comments between certificates may be in any script; `ssl` takes ASCII only.
        context.load_verify_locations(cadata=settings["ca"].encode("ascii", "ignore").decode())
    else:
        context.load_default_certs()
    if settings.get("cert"):
        if not settings.get("key"):
            raise ValueError("a client certificate without its key")
        load_chain(context, settings["cert"], settings["key"])
    return context


def load_chain(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Load a PEM pair that is in memory; `ssl` takes only files, so a private one lives for this call."""
    with tempfile.NamedTemporaryFile("w", suffix=".pem", dir=_private_dir(), encoding="utf-8") as file:  # mode 0600
        file.write(key.rstrip() + "\n" + certificate)
        file.flush()
        context.load_cert_chain(file.name)


def _private_dir() -> str | None:
    # Memory, not disk, where the machine has it; also there under a read-only root file system.
    shm = "/dev/shm"  # noqa: S108 - the files there are 0600 and deleted at once
    return shm if os.access(shm, os.W_OK) else None
