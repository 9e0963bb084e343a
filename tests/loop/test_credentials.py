"""kube.credentials: every kind of kubeconfig, renewed in time, bounded when a plugin misbehaves, and never told.

What the child process does is run in this one where it does not matter; `child` asks for the real thing.
"""

import asyncio
import base64
import errno
import io
import json
import os
import stat
import sys
import textwrap
from collections.abc import Callable, Coroutine
from contextlib import redirect_stdout
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.apiserver import soon
from tests.builders import NOW
from vnode.devcluster.pki import Authority
from vnode.errors import ConfigError, Unavailable
from vnode.kube import credentials as module
from vnode.kube import tls
from vnode.kube.credentials import Connection, Credentials, HeldKubeconfig, from_kubeconfig, home, in_cluster

SECRET = "sesame-open-7"


class Clock:
    """The injected `now`, moved by hand."""

    def __init__(self) -> None:
        self.moment = NOW

    def __call__(self) -> datetime:
        return self.moment

    def forward(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


def kubeconfig(path: Path, user: dict[str, Any], **cluster: Any) -> str:
    """A kubeconfig of one context, `it`."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "it",
        "clusters": [{"name": "it", "cluster": {"server": "http://10.0.0.1:6443", **cluster}}],
        "users": [{"name": "it", "user": user}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
    }
    path.write_text(yaml.safe_dump(content))
    return str(path)


def in_namespace(path: str, namespace: str) -> str:
    """The kubeconfig `path`, whose context has this namespace now."""
    content = yaml.safe_load(Path(path).read_text())
    content["contexts"][0]["context"]["namespace"] = namespace
    Path(path).write_text(yaml.safe_dump(content))
    return path


def plugin(path: Path, body: str) -> dict[str, Any]:
    """An exec plugin that runs this Python; its runs are counted in `path`.runs."""
    script = path.with_suffix(".py")
    counting = f"open({str(path.with_suffix('.runs'))!r}, 'a').write('x')\n"
    script.write_text("import json, os, sys, time\n" + counting + textwrap.dedent(body))
    command = {"apiVersion": "client.authentication.k8s.io/v1", "command": sys.executable, "args": [str(script)]}
    return {"exec": {**command, "interactiveMode": "Never"}}


def runs(path: Path) -> int:
    counted = path.with_suffix(".runs")
    return len(counted.read_text()) if counted.exists() else 0


def giving(token: str, **status: Any) -> str:
    """The body of a plugin that gives this token."""
    answer = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": token, **status},
    }
    return f"print(json.dumps({answer!r}))\n"


def authorization(connection: Connection) -> str | None:
    return connection.headers.get("Authorization")


def silent_about(secret: str, *things: object) -> None:
    for thing in things:
        assert secret not in repr(thing)
        assert secret not in str(thing)


@pytest.fixture
def child() -> None:
    """Ask for this to have the kubeconfig read in a child, as it really is; that takes a second on a good day."""


@pytest.fixture(autouse=True)
def _quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "child" not in request.fixturenames:
        monkeypatch.setattr(module, "_resolve_in_child", _resolve_here)


async def _resolve_here(place: str, asked: dict[str, str]) -> dict[str, Any]:
    """The child's very code, in this process."""
    answer = io.StringIO()
    request = io.StringIO(json.dumps(asked))
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(answer):
        patch.setattr(sys, "stdin", request)
        module._main()
    settings: dict[str, Any] = json.loads(answer.getvalue())
    if "error" in settings:
        raise Unavailable(f"{place}: {settings['error']}")
    return settings


# --- what a kubeconfig may hold ---


async def test_a_token_becomes_a_header_and_is_not_told(tmp_path: Path, child: None) -> None:
    connection = await from_kubeconfig(kubeconfig(tmp_path / "c", {"token": SECRET})).current()
    assert (connection.server, connection.tls) == ("http://10.0.0.1:6443", None)
    assert authorization(connection) == f"Bearer {SECRET}"
    silent_about(SECRET, connection)


async def test_a_user_and_a_password_become_a_header(tmp_path: Path) -> None:
    user = {"username": "u", "password": SECRET}
    connection = await from_kubeconfig(kubeconfig(tmp_path / "c", user)).current()
    assert authorization(connection) == "Basic " + base64.b64encode(f"u:{SECRET}".encode()).decode()


@pytest.mark.parametrize("namespace", ["", "shop"])
async def test_the_contexts_namespace_is_told(namespace: str, tmp_path: Path) -> None:
    config = kubeconfig(tmp_path / "c", {"token": "t"})
    assert (await from_kubeconfig(in_namespace(config, namespace)).current()).namespace == namespace


async def test_a_token_file_is_read_again_in_time(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("one")
    clock = Clock()
    credentials = from_kubeconfig(kubeconfig(tmp_path / "c", {"tokenFile": str(tmp_path / "token")}), now=clock)
    assert authorization(await credentials.current()) == "Bearer one"
    (tmp_path / "token").write_text("two")
    assert authorization(await credentials.current()) == "Bearer one"
    clock.forward(301)
    assert authorization(await credentials.current()) == "Bearer two"


async def test_a_refused_credential_is_read_again_but_not_at_every_refusal(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("one")
    clock = Clock()
    credentials = from_kubeconfig(kubeconfig(tmp_path / "c", {"tokenFile": str(tmp_path / "token")}), now=clock)
    first = await credentials.current()
    (tmp_path / "token").write_text("two")
    credentials.rejected(first)
    assert await credentials.current() is first  # it was read a moment ago
    clock.forward(11)
    credentials.rejected(first)
    second = await credentials.current()
    assert authorization(second) == "Bearer two"
    clock.forward(11)
    credentials.rejected(first)  # a late word about the old one
    assert await credentials.current() is second


async def test_a_client_certificate_with_its_authority_makes_a_verifying_context(tmp_path: Path) -> None:
    authority = Authority("test")
    (tmp_path / "ca").write_bytes(authority.cert)
    leaf = authority.issue("me")
    certificate, key = leaf.write(tmp_path, "me")
    user = {"client-certificate": str(certificate), "client-key": str(key)}
    config = kubeconfig(
        tmp_path / "c",
        user,
        server="https://10.0.0.1:6443",
        **{"certificate-authority": str(tmp_path / "ca"), "tls-server-name": "home.local"},
    )
    connection = await from_kubeconfig(config).current()
    assert connection.tls is not None
    assert connection.tls.check_hostname
    assert len(connection.tls.get_ca_certs()) == 1
    assert connection.server_name == "home.local"
    silent_about(leaf.key.decode()[40:80], connection)


async def test_a_certificate_that_is_none_is_told_without_its_text(tmp_path: Path) -> None:
    data = {"client-certificate-data": base64.b64encode(SECRET.encode()).decode()}
    user = {**data, "client-key-data": data["client-certificate-data"]}
    config = kubeconfig(tmp_path / "c", user, server="https://10.0.0.1:6443", **{"insecure-skip-tls-verify": True})
    with pytest.raises(Unavailable, match=r"certificates of https://10\.0\.0\.1:6443 cannot be used") as caught:
        await from_kubeconfig(config).current()
    silent_about(SECRET, caught.value)


async def test_an_authority_may_have_comments_in_any_script(tmp_path: Path) -> None:
    authority = tmp_path / "ca.crt"
    authority.write_bytes("Zürich\n".encode("latin-1") + "Genève\n".encode() + Authority("test").cert)
    cluster = {"server": "https://10.0.0.1:6443", "certificate-authority": str(authority)}
    connection = await from_kubeconfig(kubeconfig(tmp_path / "c", {"token": "t"}, **cluster)).current()
    assert connection.tls is not None
    assert len(connection.tls.get_ca_certs()) == 1


async def test_a_client_certificate_without_its_key_is_told(tmp_path: Path) -> None:
    user = {"client-certificate-data": base64.b64encode(Authority("test").cert).decode()}
    config = kubeconfig(tmp_path / "c", user, server="https://10.0.0.1:6443")
    with pytest.raises(Unavailable, match="key"):
        await from_kubeconfig(config).current()


@pytest.mark.parametrize("printed", ["no json", "3", "[]", "{}", '{"server": 7}', "\\377"])
async def test_a_reader_that_answers_nonsense_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, child: None, printed: str
) -> None:
    reader = tmp_path / "python"
    reader.write_text(f"#!/bin/sh\nprintf '%b' '{printed}'\n")
    reader.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(reader))
    with pytest.raises(Unavailable, match="its reader gave no answer"):
        await from_kubeconfig(kubeconfig(tmp_path / "c", {"token": SECRET})).current()


@pytest.mark.parametrize("failure", [BlockingIOError(errno.EAGAIN, "no more"), RuntimeError("can't start new thread")])
async def test_a_reader_that_cannot_be_started_does_not_end_what_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, child: None, failure: Exception
) -> None:
    async def full(*_: Any, **__: Any) -> None:
        raise failure

    clock = Clock()
    (tmp_path / "token").write_text("sesame")
    config = kubeconfig(tmp_path / "c", {"tokenFile": str(tmp_path / "token")})
    credentials = from_kubeconfig(config, now=clock)
    connection = await credentials.current()
    monkeypatch.setattr(asyncio, "create_subprocess_exec", full)
    clock.forward(3600)
    assert await credentials.current() is connection
    with pytest.raises(Unavailable, match="cannot be read"):
        await from_kubeconfig(config).current()


async def test_a_proxy_is_used_and_its_password_not_told(tmp_path: Path) -> None:
    proxy = f"http://me:{SECRET}@proxy:3128"
    connection = await from_kubeconfig(kubeconfig(tmp_path / "c", {}, **{"proxy-url": proxy})).current()
    assert connection.proxy == proxy
    silent_about(SECRET, connection)


async def test_another_context_and_several_files_are_merged_as_kubectl_does(tmp_path: Path) -> None:
    one = kubeconfig(tmp_path / "one", {"token": "one"})
    content = yaml.safe_load(text_of(tmp_path / "one"))
    for kind in ("clusters", "users", "contexts"):
        content[kind][0]["name"] = "other"
    content["contexts"][0]["context"] = {"cluster": "other", "user": "other"}
    content["users"][0]["user"] = {"token": "other"}
    (tmp_path / "two").write_text(yaml.safe_dump(content))
    paths = f"{tmp_path / 'none'}:{one}:{tmp_path / 'two'}"
    assert authorization(await from_kubeconfig(paths).current()) == "Bearer one"
    assert authorization(await from_kubeconfig(paths, "other").current()) == "Bearer other"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "no such file"),
        ("", ""),
        (f"{{ token: {SECRET}", ""),
        (f"users:\n- {SECRET}\n", ""),
        ("clusters: []\nusers: []\ncontexts: []\ncurrent-context: it\n", "it"),
    ],
)
async def test_a_file_that_is_no_kubeconfig_is_told_in_one_line(tmp_path: Path, content: str | None, told: str) -> None:
    path = tmp_path / "c"
    if content is not None:
        path.write_text(content)
    with pytest.raises(Unavailable) as caught:
        await from_kubeconfig(str(path)).current()
    assert str(path) in str(caught.value)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    silent_about(SECRET, caught.value)


async def test_the_child_tells_its_failure_in_one_line(tmp_path: Path, child: None) -> None:
    path = tmp_path / "c"
    path.write_text(f"{{ token: {SECRET}")
    with pytest.raises(Unavailable) as caught:
        await from_kubeconfig(str(path)).current()
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    silent_about(SECRET, caught.value)


# --- exec plugins ---


async def test_a_kubeconfig_in_memory_is_used_until_it_is_replaced(tmp_path: Path, child: None) -> None:
    old = text_of(Path(kubeconfig(tmp_path / "old", {"token": "s3cret-old"})))
    new = text_of(Path(kubeconfig(tmp_path / "new", {"token": "s3cret-new"})))
    held = HeldKubeconfig(old, "Secret edge", "")
    first = await held.current()
    assert authorization(first) == "Bearer s3cret-old"
    held.rejected(first)
    assert await held.current() is first, "the same text gives the same credential: nothing is read again"
    held.replace(old)
    assert await held.current() is first
    held.replace(new)
    second = await held.current()
    assert authorization(second) == "Bearer s3cret-new"
    silent_about("s3cret", held, first, second)


async def test_a_kubeconfig_that_is_replaced_while_it_is_read_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(_: str, asked: dict[str, str]) -> dict[str, Any]:
        held.replace("new")
        return {"server": "http://a", "authorization": asked["text"]}

    monkeypatch.setattr(module, "_resolve_in_child", resolve)
    held = HeldKubeconfig("old", "Secret edge", "", Clock())
    assert authorization(await held.current()) == "old"
    assert authorization(await held.current()) == "new"


async def test_a_kubeconfig_in_memory_that_cannot_be_used_leaves_the_last_one(tmp_path: Path) -> None:
    text = text_of(Path(kubeconfig(tmp_path / "old", {"token": "s3cret"})))
    held = HeldKubeconfig(text, "Secret edge", "")
    first = await held.current()
    held.replace("a: b")
    assert await held.current() is first
    with pytest.raises(Unavailable, match=r"^Secret edge: "):
        await HeldKubeconfig("a: b", "Secret edge", "").current()


async def test_a_plugin_is_run_once_for_all_who_wait(tmp_path: Path, child: None) -> None:
    user = plugin(tmp_path / "p", giving(SECRET))
    credentials = from_kubeconfig(kubeconfig(tmp_path / "c", user))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(credentials.current()) for _ in range(20)]
    assert {authorization(task.result()) for task in tasks} == {f"Bearer {SECRET}"}
    assert len({id(task.result()) for task in tasks}) == 1
    assert runs(tmp_path / "p") == 1


async def test_a_plugins_token_is_renewed_before_its_end(tmp_path: Path) -> None:
    # Its end must lie in the real future, or the kubernetes package does not take it.
    clock = Clock()
    clock.moment = datetime.now(NOW.tzinfo)
    end = (clock.moment + timedelta(seconds=600)).strftime("%Y-%m-%dT%H:%M:%SZ")
    user = plugin(tmp_path / "p", giving("one", expirationTimestamp=end))
    credentials = from_kubeconfig(kubeconfig(tmp_path / "c", user), now=clock)
    await credentials.current()
    clock.forward(530)
    await credentials.current()
    assert runs(tmp_path / "p") == 1
    clock.forward(20)
    plugin(tmp_path / "p", giving("two", expirationTimestamp=end))
    assert authorization(await credentials.current()) == "Bearer two"


async def test_a_plugin_that_fails_is_told_and_not_run_for_every_request(tmp_path: Path) -> None:
    clock = Clock()
    user = plugin(tmp_path / "p", "sys.exit(3)")
    credentials = from_kubeconfig(kubeconfig(tmp_path / "c", user), now=clock)
    for _ in range(4):
        with pytest.raises(Unavailable, match=str(tmp_path / "c")):
            await credentials.current()
    assert runs(tmp_path / "p") == 1
    plugin(tmp_path / "p", giving("well"))
    clock.forward(6)
    assert authorization(await credentials.current()) == "Bearer well"


async def test_a_credential_that_cannot_be_renewed_serves_on(tmp_path: Path) -> None:
    clock = Clock()
    user = plugin(tmp_path / "p", giving("one"))
    credentials = from_kubeconfig(kubeconfig(tmp_path / "c", user), now=clock)
    first = await credentials.current()
    plugin(tmp_path / "p", "sys.exit(3)")
    clock.forward(301)
    assert await credentials.current() is first
    assert await credentials.current() is first
    assert runs(tmp_path / "p") == 2


@pytest.mark.parametrize(
    "body",
    [
        "pass",
        "print('no json')",
        "print(json.dumps({'status': {}}))",
        f"print(json.dumps({{'apiVersion': 'client.authentication.k8s.io/v1', 'status': {{'x': '{SECRET}'}}}}))",
    ],
)
async def test_a_plugin_that_answers_nonsense_gives_no_credential(tmp_path: Path, body: str) -> None:
    credentials = from_kubeconfig(kubeconfig(tmp_path / "c", plugin(tmp_path / "p", body)))
    with pytest.raises(Unavailable) as caught:
        await credentials.current()
    silent_about(SECRET, caught.value)


async def test_a_plugin_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, child: None) -> None:
    monkeypatch.setattr(module, "RESOLVE_LIMIT_S", 0.5)
    config = kubeconfig(tmp_path / "c", plugin(tmp_path / "p", "time.sleep(600)"))
    with pytest.raises(Unavailable, match=r"took more than 0 s \(an exec plugin\?\)"):
        await from_kubeconfig(config).current()


async def test_a_plugin_is_ended_with_the_child_that_runs_it(tmp_path: Path, child: None) -> None:
    pid = tmp_path / "pid"
    user = plugin(tmp_path / "p", f"open({str(pid)!r}, 'w').write(str(os.getpid()) + '.')\ntime.sleep(600)")
    credentials = from_kubeconfig(kubeconfig(tmp_path / "c", user))
    task = asyncio.get_running_loop().create_task(credentials.current())
    await soon(lambda: text_of(pid).endswith("."), 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    stat = Path(f"/proc/{text_of(pid).rstrip('.')}/stat")
    await soon(lambda: text_of(stat).rpartition(")")[2].strip()[:1] in ("", "Z"), 60)


def text_of(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


# --- where home is ---


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without any kubeconfig, on no cluster."""
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(module, "IN_CLUSTER", tmp_path / "serviceaccount")
    return tmp_path


def service_account(folder: Path, monkeypatch: pytest.MonkeyPatch, host: str = "10.96.0.1") -> Path:
    """The files and variables of a Pod's ServiceAccount."""
    files = folder / "serviceaccount"
    files.mkdir()
    (files / "token").write_text("pod-token\n")
    (files / "ca.crt").write_bytes(Authority("test").cert)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    return files


async def test_home_is_looked_for_in_kubectls_order(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def found(paths: str = "") -> str | None:
        return authorization(await home(paths).current())

    with pytest.raises(ConfigError, match="no home cluster"):
        home()
    service_account(nowhere, monkeypatch)
    assert await found() == "Bearer pod-token"
    (nowhere / ".kube").mkdir()
    kubeconfig(nowhere / ".kube" / "config", {"token": "default"})
    assert await found() == "Bearer default"
    monkeypatch.setenv("KUBECONFIG", kubeconfig(nowhere / "env", {"token": "variable"}))
    assert await found() == "Bearer variable"
    assert await found(kubeconfig(nowhere / "flag", {"token": "flag"})) == "Bearer flag"


@pytest.mark.parametrize(
    ("host", "server"), [("10.96.0.1", "https://10.96.0.1:443"), ("fd00::1", "https://[fd00::1]:443")]
)
async def test_in_a_cluster_the_pods_own_account_is_used_and_read_again(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch, host: str, server: str
) -> None:
    files = service_account(nowhere, monkeypatch, host)
    clock = Clock()
    credentials = in_cluster(clock)
    first = await credentials.current()
    assert (first.server, authorization(first)) == (server, "Bearer pod-token")
    assert first.tls is not None
    clock.forward(61)
    assert await credentials.current() is first, "the same content keeps its connections"
    (files / "token").write_text("new-token")
    clock.forward(61)
    assert authorization(await credentials.current()) == "Bearer new-token"


async def test_in_a_cluster_a_token_that_is_gone_does_not_end_what_works(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = service_account(nowhere, monkeypatch)
    clock = Clock()
    credentials = in_cluster(clock)
    first = await credentials.current()
    (files / "token").unlink()
    clock.forward(61)
    assert await credentials.current() is first
    with pytest.raises(Unavailable, match="ServiceAccount"):
        await in_cluster(clock).current()


# --- renewal, without any process ---

Resolve = Callable[[], Coroutine[Any, Any, tuple[dict[str, Any], datetime | None]]]


def renewed(resolve: Resolve, clock: Clock) -> Credentials:
    return module._Renewed(resolve, clock)


async def test_what_never_ends_is_resolved_once() -> None:
    count = [0]

    async def resolve() -> tuple[dict[str, Any], None]:
        count[0] += 1
        return {"server": "http://a"}, None

    clock = Clock()
    credentials = renewed(resolve, clock)
    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(credentials.current())
    clock.forward(10**6)
    await credentials.current()
    assert count == [1]


async def test_what_never_ends_is_resolved_again_when_it_is_refused() -> None:
    tokens = ["one", "two"]

    async def resolve() -> tuple[dict[str, Any], None]:
        return {"server": "http://a", "authorization": tokens.pop(0)}, None

    clock = Clock()
    credentials = renewed(resolve, clock)
    first = await credentials.current()
    clock.forward(11)
    credentials.rejected(first)
    assert authorization(await credentials.current()) == "two"
    assert tokens == []


async def test_refusals_during_an_outage_of_the_plugin_do_not_run_it_each_time() -> None:
    count = [0]

    async def resolve() -> tuple[dict[str, Any], None]:
        count[0] += 1
        if count[0] > 1:
            raise Unavailable("plugin down")
        return {"server": "http://a"}, None

    clock = Clock()
    credentials = renewed(resolve, clock)
    connection = await credentials.current()
    clock.forward(11)
    for _ in range(50):
        credentials.rejected(connection)
        assert await credentials.current() is connection
    assert count == [2]


def test_a_key_in_memory_lies_in_a_private_file_only_while_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    class Context:
        def load_cert_chain(self, path: str) -> None:
            seen.append(stat.S_IMODE(os.stat(path).st_mode))
            assert Path(path).read_text() == "KEY\nCERT"

    monkeypatch.setattr(tls, "_private_dir", lambda: str(tmp_path))
    tls.load_chain(Context(), "CERT", "KEY\n\n")  # type: ignore[arg-type]
    assert seen == [0o600]
    assert list(tmp_path.iterdir()) == []
