"""`vnode status`, `peers` and `pods`: what they tell of which objects, and how it looks."""

import io
import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
import yaml
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from rich.console import Console

from tests.builders import NOW, condition, finished, raw_pod, running
from vnode import names
from vnode.observe.hops import Hops, Spread, read_hops
from vnode.observe.objects import Event, Node, Peer, Pod
from vnode.observe.render import Following, as_colours, as_data, as_text
from vnode.observe.reports import health_of, peers_report, pods_report, status_report
from vnode.observe.tables import age, brief, peers_page, pods_page, status_page

Json = dict[str, Any]
SINCE = "2026-05-01T11:56:00Z"
HOPS = Hops(Spread(40, 0.012, 0.087), Spread(80, 0.0094, 1.34), Spread(900, 0.0021, 0.004))


def node(name: str, ready: str = "True", reason: str = "VnodeReady", message: str = "fine", **more: Any) -> Node:
    """The Node of peer `name`, called so too."""
    raw: Json = {
        "metadata": {"name": name, "labels": {names.PEER: name}, "annotations": {}, "creationTimestamp": SINCE},
        "spec": more.get("spec", {}),
        "status": {
            "conditions": [condition("Ready", ready, SINCE, reason=reason, message=message)],
            "nodeInfo": {"kubeletVersion": "v1.37.2"},
            "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 40123}},
            "allocatable": {"cpu": "64", "memory": "256Gi", "pods": "220"},
        },
    }
    raw["metadata"]["annotations"] |= more.get("annotations", {})
    return msgspec.convert(raw, Node, strict=False)


def peer(name: str, **status: Any) -> Peer:
    return msgspec.convert({"metadata": {"name": name}, "status": status}, Peer, strict=False)


def pod(name: str, node: str, status: Json) -> Pod:
    raw = raw_pod(name, uid=f"uid-{name}", spec={"nodeName": node}, status=status, creationTimestamp=SINCE)
    return msgspec.convert(raw, Pod, strict=False)


def warning(name: str, reason: str, message: str, at: str, host: str = "edge", **more: Any) -> Event:
    raw = {
        "involvedObject": {"kind": "Pod", "namespace": "shop", "name": name},
        "type": "Warning",
        "reason": reason,
        "message": message,
        "lastTimestamp": at,
        "source": {"component": "vnode", "host": host},
        **more,
    }
    return msgspec.convert(raw, Event, strict=False)


PODS = {
    "edge": [
        pod("web-b", "edge", running()),
        pod("web-a", "edge", running()),
        pod(
            "disk",
            "edge",
            {"phase": "Pending", "conditions": [condition(names.REMOTE_CONDITION, "False", reason="UnsupportedField")]},
        ),
        pod("job", "edge", finished()),
    ]
}


def test_status_in_a_pipe_looks_like_this() -> None:
    away = node("far", "False", "PeerUnreachable", "/readyz: no answer within 3 s")
    events = [
        warning(
            "disk", "UnsupportedField", "spec.volumes[0]: home's claims\ndo not travel", "2026-05-01T11:59:50Z", count=3
        ),
        warning("old", "RemoteRefused", "quota", "2026-05-01T11:00:00Z"),
        warning("other", "RemoteRefused", "of no peer that is shown", "2026-05-01T11:59:59Z", host="gone"),
    ]
    report = status_report([away, node("edge")], [], PODS, events, {"edge": HOPS}, ["no hops of far"])
    assert as_text(status_page(report, NOW, wide=False)) == (
        "PEER   HEALTH            FOR    PODS   STATES                       HOP DOWN P50/P99   HOP UP P50/P99   "
        "PROBLEM\n"
        "edge   Ready             4m0s   4      2 ready, 1 failing, 1 done   12ms/87ms          9.4ms/1.3s\n"
        "far    PeerUnreachable   4m0s   0      -                            -                  -                "
        "/readyz: no answer within 3 s\n"
        "\n"
        "LAST ERRORS   ABOUT           REASON             MESSAGE\n"
        "10s           pod shop/disk   UnsupportedField   spec.volumes[0]: home's claims do not travel (x3)\n"
        "60m           pod shop/old    RemoteRefused      quota\n"
        "\n"
        "note: no hops of far\n"
    )


def test_wide_adds_columns() -> None:
    report = status_report([node("edge")], [], {}, [], {"edge": HOPS}, [])
    (head, row) = as_text(status_page(report, NOW, wide=True)).splitlines()
    assert head.split("   ")[-3:] == ["NODE", "VERSION", "ROUND TRIP P50/P99"]
    assert row.split()[-3:] == ["edge", "v1.37.2", "2.1ms/4.0ms"]


def test_without_any_peer_there_is_a_sentence() -> None:
    report = status_report([], [], {}, [], {}, [])
    assert as_text(status_page(report, NOW, wide=False)) == "no peers: no Node has the label vnode.dev/peer\n"


@pytest.mark.parametrize(
    ("seen", "told", "word", "problem"),
    [
        (node("edge"), None, "Ready", ""),
        (node("edge", spec={"unschedulable": True}), None, "SchedulingDisabled", ""),
        (node("edge", "False", "VnodeStopped", "vnode was stopped"), None, "VnodeStopped", "vnode was stopped"),
        (node("edge", "Unknown", "NodeStatusUnknown", "Kubelet stopped"), None, "Unknown", "no Lease from vnode"),
        (node("edge", annotations={names.REMOVING: "true"}), None, "Removing", "it is being taken out"),
        (node("edge"), peer("edge", problem="RightMissing: may not list pods"), "Ready", "RightMissing: may not"),
        (
            None,
            peer("edge", problem="SecretNotFound: Secret edge: no such Secret"),
            "SecretNotFound",
            "SecretNotFound:",
        ),
        (None, peer("edge"), "NoNode", "vnode has made no Node"),
    ],
)
def test_health_says_what_is_wrong(seen: Node | None, told: Peer | None, word: str, problem: str) -> None:
    health = health_of(seen, told)
    assert health.word == word
    assert health.problem.startswith(problem)
    assert bool(health.problem) == bool(problem)


def test_a_peer_object_without_a_node_is_a_peer_and_its_last_error_is_told() -> None:
    last = {"time": "2026-05-01T11:59:00Z", "message": "x509: expired"}
    edge = peer("edge", nodeName="edge-node", peerVersion="v1.36.0", problem="KubeconfigInvalid: no", lastError=last)
    report = status_report([], [edge], {}, [], {}, [])
    assert [(row.peer, row.node, row.version) for row in report.peers] == [("edge", "edge-node", "v1.36.0")]
    assert [(error.about, error.message) for error in report.errors] == [("peer edge", "x509: expired")]


def test_peers_in_a_pipe_look_like_this() -> None:
    report = peers_report([node("edge")], [], {"edge": HOPS}, [])
    assert as_text(peers_page(report, NOW, wide=True)) == (
        "PEER   NODE   HEALTH   FOR    VERSION   CPU   MEMORY    PODS   ROUND TRIP P50/P99   AGE    KUBELET PORT     "
        "REGION   ZONE   PROVIDER\n"
        "edge   edge   Ready    4m0s   v1.37.2   64    256.0Gi   220    2.1ms/4.0ms          4m0s   10.0.0.1:40123   "
        "-        -      -\n"
    )


def test_pods_have_their_places_where_the_peer_was_asked() -> None:
    raw = raw_pod("web-a", namespace="shop-home", spec={"nodeName": "n1"}, status=running())
    raw["metadata"]["annotations"] = {names.ORIGIN_UID: "uid-web-a"}
    report = pods_report([node("edge")], PODS, {"edge": [msgspec.convert(raw, Pod, strict=False)]}, [])
    assert as_text(pods_page(report, NOW, wide=False)) == (
        "NAMESPACE   NAME    READY   STATUS             RESTARTS   AGE    PEER   "
        "AT THE PEER       PEER NODE   PEER IP\n"
        "shop        disk    0/1     UnsupportedField   0          4m0s   edge   "
        "-                 -           -\n"
        "shop        job     0/1     Completed          0          4m0s   edge   "
        "-                 -           -\n"
        "shop        web-a   1/1     Running            0          4m0s   edge   "
        "shop-home/web-a   n1          10.7.0.3\n"
        "shop        web-b   1/1     Running            0          4m0s   edge   "
        "-                 -           -\n"
    )
    alone = as_text(pods_page(pods_report([node("edge")], PODS, {}, []), NOW, wide=False))
    assert alone.splitlines()[0].split()[-1] == "PEER"


def test_programs_get_the_same_as_json_and_as_yaml() -> None:
    report = status_report([node("edge")], [], PODS, [], {"edge": HOPS}, [])
    data = json.loads(as_data(report, "json"))
    assert data["peers"][0]["health"] == {"word": "Ready", "since": SINCE, "problem": ""}
    assert data["peers"][0]["hops"]["down"] == {"count": 40, "p50": 0.012, "p99": 0.087}
    assert data["peers"][0]["pods"] == {"ready": 2, "unready": 0, "pending": 0, "failing": 1, "done": 1, "leaving": 0}
    assert yaml.safe_load(as_data(report, "yaml").replace(f"'{SINCE}'", f'"{SINCE}"')) == data


def test_a_terminal_shows_the_same_words_and_obeys_none_of_them() -> None:
    evil = node("edge", "False", "PeerUnreachable", "\x1b[2J\x07gone [red]markup[/]")
    report = status_report([evil], [], {}, [], {}, ["\x1b]0;title\x07note"])
    for text in (as_text(status_page(report, NOW, wide=False)), _on_terminal(status_page(report, NOW, wide=False))):
        assert "[2J gone [red]markup[/]" in text
        assert "\x1b[2J" not in text
        assert "\x1b]0" not in text
        assert "\x07" not in text
    assert "\x1b[31mPeerUnreachable" in _on_terminal(status_page(report, NOW, wide=False))


def test_a_live_view_is_redrawn_on_a_terminal_and_repeated_elsewhere_only_with_news(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = status_report([node("edge")], [], {}, [], {}, [])
    after = status_report([node("edge")], [], PODS, [], {}, [])
    terminal = Console(force_terminal=True, width=200, file=io.StringIO())
    for console in (terminal, Console(file=io.StringIO())):
        with Following(console) as view:
            for report in (before, before, after):
                view.show(status_page(report, NOW, wide=False), report)
    told = capsys.readouterr().out
    assert told.count("PEER ") == 2
    assert told.endswith(as_text(status_page(after, NOW, wide=False)))
    assert isinstance(terminal.file, io.StringIO)
    assert "2 ready, 1 failing" in terminal.file.getvalue()


def test_hops_are_the_quantiles_of_vnodes_own_histograms() -> None:
    registry = CollectorRegistry()
    buckets = (0.01, 0.1, 1.0)
    down = Histogram("vnode_pods_hop_down_seconds", "d", ["peer"], buckets=buckets, registry=registry).labels("edge")
    up = Histogram("vnode_pods_hop_up_seconds", "u", ["peer"], buckets=buckets, registry=registry)
    up.labels("far")
    for seconds in [0.05] * 98 + [0.5, 7.0]:
        down.observe(seconds)
    hops = read_hops(generate_latest(registry).decode())
    assert hops["edge"].down is not None
    assert hops["edge"].down.count == 100
    assert hops["edge"].down.p50 == pytest.approx(0.01 + 0.09 * 50 / 98)
    assert hops["edge"].down.p99 == pytest.approx(1.0)
    assert hops["edge"].up is None
    assert hops["far"] == Hops()  # a histogram without a sample


def test_what_lies_beyond_the_last_bucket_is_told_as_that_bucket() -> None:
    registry = CollectorRegistry()
    Histogram("vnode_node_probe_seconds", "p", ["peer"], buckets=(1.0,), registry=registry).labels("edge").observe(9)
    assert read_hops(generate_latest(registry).decode())["edge"].probe == Spread(1, 1.0, 1.0)


@pytest.mark.parametrize(
    ("since", "text"),
    [("11:59:59", "1s"), ("11:58:01", "119s"), ("11:55:57", "4m3s"), ("10:00:00", "120m"), ("00:00:00", "12h")],
)
def test_ages_are_kubectls(since: str, text: str) -> None:
    assert age(datetime.fromisoformat(f"2026-05-01T{since}Z"), NOW) == text
    assert age(datetime(2026, 4, 20, tzinfo=UTC), NOW) == "11d"
    assert age(None, NOW) == "-"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0004, "0.4ms"), (0.00994, "9.9ms"), (0.00996, "10ms"), (0.9994, "999ms"), (0.9996, "1.0s"), (12.2, "12s")],
)
def test_short_times_have_two_digits_that_count(seconds: float, text: str) -> None:
    assert brief(seconds) == text


def _on_terminal(page: Any) -> str:
    console = Console(force_terminal=True, width=300, color_system="standard")
    with console.capture() as captured:
        console.print(as_colours(page))
    return captured.get()
