"""Kubeconfig or in-cluster files -> a `Connection`, renewed for as long as the process lives.

Kubeconfigs are read by the `kubernetes` package: merging, exec plugins, OIDC, token files, client certificates.
It runs in a child process (`python -m vnode.kube.credentials`) for three reasons: importing it costs 44 MB that a
long-lived process need not carry, an exec plugin that hangs can be killed where a thread cannot, and the private
keys it writes to temporary files are gone when the child is. The child prints one JSON object and exits.

Called by `kube.client` only. This is the only door for the `kubernetes` package.
"""

import asyncio
import io
import json
import logging
import os
import signal
import ssl
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from vnode.errors import ConfigError, Unavailable
from vnode.kube.objects import utc_now
from vnode.kube.tls import client_context

log = logging.getLogger(__name__)

IN_CLUSTER = Path("/var/run/secrets/kubernetes.io/serviceaccount")
RESOLVE_LIMIT_S = 60.0
RENEW_BEFORE = timedelta(seconds=60)  # renewed this long before what the credential says is its end
REREAD_EVERY = timedelta(seconds=60)  # token files, as client-go does
RETRY_EVERY = timedelta(seconds=5)  # after a renewal that failed
REJECT_EVERY = timedelta(seconds=10)  # at most one early renewal for a refused credential in this time


@dataclass(frozen=True, slots=True)
class Connection:
    """How to speak to one apiserver now. `tls` is None for plain http."""

    server: str
    tls: ssl.SSLContext | None = field(repr=False)
    headers: dict[str, str] = field(repr=False)
    server_name: str | None = None
    proxy: str | None = field(default=None, repr=False)  # may hold a password
    namespace: str = ""  # the one its user works in, where that is said


class Credentials(Protocol):
    """Where a client gets its connection from, before each request."""

    async def current(self) -> Connection:
        """The connection to use. Raises `Unavailable` when it cannot be renewed now."""

    def rejected(self, connection: Connection) -> None:
        """The server did not accept this one: renew it at the next call of `current`."""


class _Renewed:
    """A connection kept until it is near its end or refused; renewals are single-flight."""

    def __init__(self, resolve: Callable[[], Any], now: Callable[[], datetime]) -> None:
        self._resolve = resolve
        self._now = now
        self._connection: Connection | None = None
        self._failure = ""
        self._renew_at: datetime | None = None
        self._tried_at: datetime | None = None
        self._lock = asyncio.Lock()

    async def current(self) -> Connection:
        connection = self._connection
        if connection is not None and (self._renew_at is None or self._now() < self._renew_at):
            return connection
        async with self._lock:  # held over the child's run on purpose: all others need its answer
            if self._tried_at is None or (self._renew_at is not None and self._now() >= self._renew_at):
                await self._try_to_renew()
            if self._connection is None:
                raise Unavailable(self._failure)
            return self._connection

    async def _try_to_renew(self) -> None:
        """Renew; after a failure the old connection, where there is one, serves until the next try."""
        try:
            await self._renew()
        except Unavailable as failure:
            # Not at each request: a try is a process, and all requests wait for it.
            self._failure, self._renew_at = str(failure), self._now() + RETRY_EVERY
            log.warning("credential not renewed", extra={"error": self._failure})
        self._tried_at = self._now()

    async def _renew(self) -> None:
        settings, renew_at = await self._resolve()
        if self._connection is None or settings != self._settings:
            # TLS contexts are made anew only when something changed: connections are pooled by context.
            self._connection = _connection(settings)
            self._settings: dict[str, Any] = settings
        self._renew_at = renew_at

    def rejected(self, connection: Connection) -> None:
        now = self._now()
        if connection is self._connection and (self._tried_at is None or now - self._tried_at > REJECT_EVERY):
            self._renew_at = now


def from_kubeconfig(paths: str, context: str = "", now: Callable[[], datetime] = utc_now) -> Credentials:
    """Credentials of one context of a kubeconfig (`paths` may name several files, as $KUBECONFIG does)."""

    async def resolve() -> tuple[dict[str, Any], datetime | None]:
        settings = await _resolve_in_child(paths, {"paths": paths, "context": context})
        expiry = settings.pop("expiry", None)
        refreshed = settings.pop("refresh", False)
        if expiry is not None:
            # A plugin may hand out a token already near its end: ask again soon, not in a loop.
            return settings, max(datetime.fromisoformat(expiry) - RENEW_BEFORE, now() + timedelta(seconds=5))
        return settings, now() + 5 * REREAD_EVERY if refreshed else None

    return _Renewed(resolve, now)


async def read_kubeconfig(paths: str, context: str = "") -> dict[str, Any]:
    """What a context says of the way to its cluster: `server`, `ca`, `insecure`, `server_name`, `proxy`.

    Raises `Unavailable`, whose message says what is wrong with it.
    """
    found = await _resolve_in_child(paths, {"paths": paths, "context": context})
    return {key: found.get(key) for key in ("server", "ca", "insecure", "server_name", "proxy")}


class HeldKubeconfig(_Renewed):
    """Credentials of a self-contained kubeconfig in memory; `place` says where it came from.

    It is renewed by whoever holds it, by `replace`: connections go on, and later requests use the new text.
    """

    def __init__(self, text: str, place: str, context: str, now: Callable[[], datetime] = utc_now) -> None:
        async def resolve() -> tuple[dict[str, Any], datetime | None]:
            text = self._text
            settings = await _resolve_in_child(place, {"text": text, "context": context})
            held = {key: value for key, value in settings.items() if key not in ("expiry", "refresh")}
            return held, None if text == self._text else now()  # replaced meanwhile: the next request reads it

        super().__init__(resolve, now)
        self._text = text

    def replace(self, text: str) -> None:
        """Use `text` from the next request on."""
        if text != self._text:
            self._text, self._renew_at = text, self._now()

    def rejected(self, connection: Connection) -> None:
        """Nothing to be done: the same text would give the same credential."""


def in_cluster(now: Callable[[], datetime] = utc_now) -> Credentials:
    """Credentials of the ServiceAccount of the Pod we run in."""

    async def resolve() -> tuple[dict[str, Any], datetime | None]:
        try:
            token = await asyncio.to_thread((IN_CLUSTER / "token").read_text)
            authority = await asyncio.to_thread((IN_CLUSTER / "ca.crt").read_text)
        except (OSError, ValueError, RuntimeError) as error:  # gone; no text; no thread to read them in
            raise Unavailable(f"cannot read the ServiceAccount's files: {error}") from error
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
        return {"server": server, "ca": authority, "authorization": f"Bearer {token.strip()}"}, now() + REREAD_EVERY

    return _Renewed(resolve, now)


def own_namespace() -> str:
    """The namespace of the Pod we run in, else the one that deploy/base installs us into."""
    try:
        return (IN_CLUSTER / "namespace").read_text().strip() or "vnode-system"
    except OSError:
        return "vnode-system"


def home(kubeconfig: str = "", context: str = "") -> Credentials:
    """The home cluster's credentials, found in kubectl's order.

    `--kubeconfig`, else $KUBECONFIG, else `~/.kube/config`, else the Pod we run in. Raises `ConfigError` when
    there is none of them.
    """
    if kubeconfig:
        return from_kubeconfig(kubeconfig, context)
    if os.environ.get("KUBECONFIG"):
        return from_kubeconfig(os.environ["KUBECONFIG"], context)
    default = Path.home() / ".kube" / "config"
    if default.exists():
        return from_kubeconfig(str(default), context)
    if os.environ.get("KUBERNETES_SERVICE_HOST") and (IN_CLUSTER / "token").exists():
        return in_cluster()
    raise ConfigError(
        "no home cluster: give --kubeconfig, set KUBECONFIG, or run in a cluster (~/.kube/config is absent)"
    )


async def _resolve_in_child(place: str, request: dict[str, str]) -> dict[str, Any]:
    try:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "vnode.kube.credentials",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # so that a plugin of its own can be ended with it
        )
    except (OSError, RuntimeError) as error:  # no descriptor, process or (before CPython 3.12) thread left
        raise Unavailable(f"{place}: cannot be read: {error}") from error
    try:
        async with asyncio.timeout(RESOLVE_LIMIT_S):
            out, err = await child.communicate(json.dumps(request).encode())
    except TimeoutError:
        raise Unavailable(f"reading {place} took more than {RESOLVE_LIMIT_S:.0f} s (an exec plugin?)") from None
    finally:
        if child.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            await child.wait()
    if child.returncode != 0:
        lines = err.decode(errors="replace").strip().splitlines()
        detail = lines[-1] if lines else f"exit code {child.returncode}"
        raise Unavailable(f"{place}: {detail}")
    try:
        answer = json.loads(out)
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or not ("error" in answer or isinstance(answer.get("server"), str)):
        raise Unavailable(f"{place}: its reader gave no answer")  # whose text may hold a secret
    if "error" in answer:
        raise Unavailable(f"{place}: {answer['error']}")
    return answer


def _connection(settings: dict[str, Any]) -> Connection:
    server = str(settings["server"])
    try:
        tls = client_context(settings) if server.startswith("https://") else None
    except (ssl.SSLError, OSError, ValueError) as error:
        raise Unavailable(f"the certificates of {server} cannot be used: {error}") from error
    headers = {"Authorization": settings["authorization"]} if settings.get("authorization") else {}
    namespace = settings.get("namespace") or ""
    return Connection(server, tls, headers, settings.get("server_name"), settings.get("proxy"), namespace)


def _read(source: Any, context: str) -> dict[str, Any]:
    """In the child: everything of one context of files or a stream. Raises whatever the `kubernetes` package raises."""
    from kubernetes.client import Configuration
    from kubernetes.config.kube_config import KubeConfigLoader, KubeConfigMerger

    merger = KubeConfigMerger(source)
    if merger.config is None:
        raise ConfigError("no such file")
    loader = KubeConfigLoader(merger.config, active_context=context or None, config_base_path=None)
    configuration = Configuration()
    loader.load_and_set(configuration)
    values = vars(loader)
    user = loader._user.value if loader._user is not None else {}  # noqa: SLF001 - no public reader
    if "exec" in user and "token" not in values and "cert_file" not in values:
        raise ConfigError(f"exec plugin {user['exec'].get('command')!r} gave no credential")

    def content(name: str) -> str | None:
        return Path(values[name]).read_text("utf-8", "replace") if values.get(name) else None

    expiry = values.get("expiry")
    return {
        "server": values["host"],
        "ca": content("ssl_ca_cert"),
        "cert": content("cert_file"),
        "key": content("key_file"),
        "authorization": values.get("token"),
        "insecure": values.get("verify_ssl") is False,
        "server_name": values.get("tls_server_name"),
        "proxy": values.get("proxy"),
        "namespace": loader.current_context["context"].get("namespace"),
        "expiry": expiry.isoformat() if expiry is not None else None,
        "refresh": bool({"tokenFile", "client-certificate", "exec", "auth-provider"} & set(user)),
    }


def _main() -> None:
    logging.basicConfig(format="%(message)s")  # the package logs why a plugin failed, and goes on
    request = json.load(sys.stdin)
    try:
        source = io.StringIO(request["text"]) if "text" in request else request["paths"]
        answer = _read(source, request["context"])
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent tells the user in one line
        answer = {"error": str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    _main()
