"""What `vnode status` and its like ask of home and of peers, and how they take it when they are not told."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
import yaml

from tests.apiserver import Answer, FixedCredentials, Hang, Request, answer, failure, serving, stream, talking
from tests.builders import raw_pod
from vnode import names
from vnode.cli import main
from vnode.config import PeerSpec
from vnode.errors import VnodeError
from vnode.kube.client import PODS
from vnode.kube.objects import Key
from vnode.observe import completion, gather
from vnode.observe.objects import Page, Pod
from vnode.observe.reading import every, opened

WEB = Key("shop", "web")
NODES = {
    "items": [
        {
            "metadata": {"name": f"node-{peer}", "labels": {names.PEER: peer}},
            "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "VnodeReady"}]},
        }
        for peer in ("edge", "far")
    ]
}
METRICS = b"".join(
    b'vnode_pods_hop_down_seconds_bucket{le="%b",peer="%b"} 4.0\n' % (le, peer)
    for peer in (b"edge", b"far")
    for le in (b"0.01", b"+Inf")
)


def home(**replies: Answer) -> Callable[[Request], Answer]:
    """Home's answers, by the last part of the path; what is not given is an empty list."""

    def script(request: Request) -> Answer:
        last = request.path.rpartition("/")[2]
        return replies.get(last) or answer(NODES if last == "nodes" else {"items": []})

    return script


@pytest.mark.looptime
async def test_a_long_list_is_read_page_by_page() -> None:
    pages = [
        answer({"metadata": {"continue": "more"}, "items": [raw_pod("a")]}),
        answer({"metadata": {}, "items": [raw_pod("b")]}),
    ]
    async with talking(pages) as (client, server):
        found = await every(client, PODS, Page[Pod], fieldSelector="spec.nodeName=edge")
    assert [pod.metadata.name for pod in found] == ["a", "b"]
    assert [request.params for request in server.requests] == [
        {"fieldSelector": "spec.nodeName=edge", "limit": "500"},
        {"fieldSelector": "spec.nodeName=edge", "limit": "500", "continue": "more"},
    ]


@pytest.mark.looptime
async def test_pods_are_asked_for_by_node_and_one_node_tells_the_hops_of_all() -> None:
    async with talking(home(metrics=answer(METRICS))) as (client, server):
        report = await gather.status(client, [])
    assert [(row.peer, row.hops and row.hops.down and row.hops.down.count) for row in report.peers] == [
        ("edge", 4),
        ("far", 4),
    ]
    assert report.notes == []
    asked = [request.params.get("fieldSelector") for request in server.requests if request.path == "/api/v1/pods"]
    assert asked == ["spec.nodeName=node-edge", "spec.nodeName=node-far"]
    assert [request.path for request in server.requests if "proxy" in request.path] == [
        "/api/v1/nodes/node-edge/proxy/metrics"
    ]


@pytest.mark.looptime
async def test_peer_objects_are_peers_also_before_they_have_a_node() -> None:
    told = {"metadata": {"name": "new"}, "status": {"problem": "SecretNotFound: no such Secret"}}
    async with talking(home(peers=answer({"items": [told]}))) as (client, server):
        report = await gather.status(client, ["new"])
    assert [(row.peer, row.health.word) for row in report.peers] == [("new", "SecretNotFound")]
    assert "/apis/vnode.dev/v1alpha1/peers" in [request.path for request in server.requests]


@pytest.mark.looptime
async def test_what_the_user_may_not_see_is_a_note_but_for_nodes_and_pods() -> None:
    refused = failure(403, "Forbidden", "you may not")
    async with talking(home(metrics=refused, events=refused, peers=refused)) as (client, _):
        report = await gather.status(client, ["edge"])
    assert [row.peer for row in report.peers] == ["edge"]
    assert report.notes == ["no errors: home: you may not", "no hops: home: you may not"]
    for needed in ("nodes", "pods"):
        async with talking(home(**{needed: refused})) as (client, _):
            with pytest.raises(VnodeError, match=r"^home: you may not$"):
                await gather.status(client, [])


@pytest.mark.looptime
async def test_a_home_that_is_silent_is_told_within_seconds() -> None:
    async with talking([stream(Hang)]) as (client, _):
        with pytest.raises(VnodeError, match=r"^home: no answer within 8 s$"):
            await gather.status(client, [])


@pytest.mark.looptime
async def test_no_hops_are_asked_of_a_node_that_nobody_serves() -> None:
    stopped = {**NODES["items"][0], "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}
    async with talking(home(nodes=answer({"items": [stopped]}))) as (client, server):
        report = await gather.peers(client, [])
    assert report.notes == []
    assert not [request for request in server.requests if "proxy" in request.path]


@pytest.mark.looptime
async def test_the_admin_port_is_asked_where_it_is_given() -> None:
    async with serving([answer(METRICS)]) as vnode, talking(home()) as (client, server):
        report = await gather.peers(client, [], vnode.url)
    assert report.peers[0].hops is not None
    assert [(request.path, "authorization" in request.headers) for request in vnode.requests] == [("/metrics", False)]
    assert not [request for request in server.requests if "proxy" in request.path]


@pytest.mark.looptime
async def test_a_trace_finds_the_mirror_by_the_uid_of_its_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    def there(request: Request) -> Answer:
        if request.path.endswith("/events"):
            return answer({"items": []})
        mirrors = [raw_pod("web", f"n{uid}", f"r{uid}", annotations={names.ORIGIN_UID: uid}) for uid in ("u0", "u1")]
        return answer({"items": mirrors})

    async with serving(there) as peer, talking(home(web=answer(raw_pod("web", uid="u1")))) as (client, _):
        monkeypatch.setattr(gather, "from_kubeconfig", lambda *_: FixedCredentials(peer.url))
        told = await gather.life(client, WEB, [PeerSpec("edge", "edge.conf")])
    assert told.remote is not None
    assert told.remote.namespace == "nu1"
    assert told.notes == []
    pods, events = peer.requests
    assert pods.params == {
        "labelSelector": f"{names.ORIGIN_NODE}=edge",
        "fieldSelector": "metadata.name=web",
        "limit": "500",
    }
    assert (events.path, events.params["fieldSelector"]) == ("/api/v1/namespaces/nu1/events", "involvedObject.uid=ru1")


@pytest.mark.looptime
async def test_a_trace_says_what_it_lacks() -> None:
    async with talking(home(web=answer(raw_pod("web")))) as (client, _):
        assert (await gather.life(client, WEB, [])).notes == [
            "the peer was not asked: say --config FILE or --peer NAME=KUBECONFIG"
        ]
        other = PeerSpec("other", "/absent.conf")
        assert (await gather.life(client, WEB, [other])).notes == [
            "the peer was not asked: edge is the node of none that is given"
        ]
    async with talking(home(web=failure(404, "NotFound"))) as (client, _):
        with pytest.raises(VnodeError, match=r"^home: no Pod shop/web, and no Event about one$"):
            await gather.life(client, WEB, [])


@pytest.mark.looptime
async def test_a_peer_that_is_not_there_is_told_with_those_that_are() -> None:
    async with talking(home()) as (client, _):
        with pytest.raises(VnodeError, match=r"^home: no peer edge-x; there are: edge, far$"):
            await gather.peers(client, ["edge", "edge-x"])
        assert [row.peer for row in (await gather.peers(client, ["node-far"])).peers] == ["far"]
    async with talking(home(nodes=answer({"items": None}))) as (client, _):
        with pytest.raises(VnodeError, match=r"^home: no peer edge; there is none$"):
            await gather.peers(client, ["edge"])


@pytest.mark.looptime
async def test_a_peer_that_does_not_answer_is_a_note_and_a_home_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = FixedCredentials("http://127.0.0.1:9")
    monkeypatch.setattr(gather, "from_kubeconfig", lambda *_: nobody)
    nodes = {"items": [{"metadata": {"name": "edge", "labels": {names.PEER: "edge"}}}]}
    async with talking(home(nodes=answer(nodes))) as (client, _):
        report = await gather.pods(client, [], "shop", [PeerSpec("edge", "edge.conf")])
    (note,) = report.notes
    assert note.startswith("edge: http://127.0.0.1:9: ")
    assert report.asked == []
    async with opened(nobody, "home") as client:
        with pytest.raises(VnodeError, match=r"^home: http://127\.0\.0\.1:9: "):
            await gather.pods(client, [], "", [])


def test_completion_is_silent_where_home_does_not_answer(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    context = typer.Context(typer.main.get_command(typer.Typer(callback=lambda: None)))
    context.params |= {"kubeconfig": str(_kubeconfig(tmp_path / "home.conf", "http://127.0.0.1:9"))}
    begin = time.monotonic()
    assert completion.peers(context, "") == []
    assert time.monotonic() - begin < completion.LIMIT_S + 1
    context.params["kubeconfig"] = "/absent.conf"
    assert completion.pods(context, "") == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["status", "-w", "-o", "json"], "--watch: shows tables only; for programs there is `kubectl get --watch`"),
        (["peers", "--admin", "127.0.0.1:10260"], "--admin 127.0.0.1:10260: expected http://HOST:PORT"),
        (["pods", "--peer", "edge"], "--peer edge: expected NAME=KUBECONFIG[#CONTEXT]"),
        (["trace", "web", "--kubeconfig", "/absent.conf"], "--kubeconfig: expected a readable text file, /absent.conf"),
    ],
)
def test_a_wrong_command_line_is_one_line(
    arguments: list[str], told: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(_kubeconfig(tmp_path / "home.conf", "http://127.0.0.1:9")))
    monkeypatch.setattr("sys.argv", ["vnode", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capfd.readouterr()
    assert (ended.value.code, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith(f"vnode: {told}")


def _kubeconfig(path: Path, url: str) -> Path:
    document = {
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path.write_text(yaml.safe_dump(document))
    return path
