"""Usage of our Pods: what is read of a peer's measurements, how counters run on, and how a kubelet writes it."""

import json
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from tests.builders import container, container_status, mirror_of, pod, running
from vnode.kube.objects import Key
from vnode.kubelet.exposition import Renamed, merged, relabelled, written
from vnode.kubelet.measures import (
    Reading,
    Subject,
    api_readings,
    kubelet_readings,
    running_names,
    seconds,
    subject,
)
from vnode.kubelet.usage import Ledger, Point, Usage
from vnode.kubelet.usage_formats import resource_metrics, summary

HOME, REMOTE = Key("shop", "web"), Key("shop-home", "web")
WEB = Subject(HOME, "u1", 90.0, REMOTE, "node-1", frozenset({"main", "side"}), {"main": 95.0})

# As a kubelet v1.37.2 wrote it, with a stranger's Pod, another namespace's of our name, and a container injected there.
KUBELET = """\
# HELP container_cpu_usage_seconds_total [STABLE] Cumulative cpu time consumed by the container in core-seconds
# TYPE container_cpu_usage_seconds_total counter
container_cpu_usage_seconds_total{container="main",namespace="shop-home",pod="web"} 0.890671788 1795502324742
container_cpu_usage_seconds_total{container="proxy",namespace="shop-home",pod="web"} 5 1795502324742
container_cpu_usage_seconds_total{container="side",namespace="shop-home",pod="web"} 1 1795502324742
container_cpu_usage_seconds_total{container="main",namespace="other",pod="web"} 7 1795502324743
container_cpu_usage_seconds_total{container="main",namespace="shop-home",pod="stranger"} 7 1795502324743
container_memory_working_set_bytes{container="main",namespace="shop-home",pod="web"} 245760 1795502324742
container_memory_working_set_bytes{container="proxy",namespace="shop-home",pod="web"} 245760 1795502324742
container_memory_working_set_bytes{container="main",namespace="other",pod="web"} 1 1795502324743
container_start_time_seconds{container="main",namespace="shop-home",pod="web"} 1.7955023073468952e+09
node_cpu_usage_seconds_total 6671.374379794 1795502322938
resource_scrape_error 0
"""


def test_a_kubelets_text_is_read_for_containers_of_ours_that_have_both_values() -> None:
    assert kubelet_readings(KUBELET, [WEB], 2.0) == {
        REMOTE: {"main": Reading(1795502324.742, 245760, 1795502307.3468952, 0.890671788)}
    }


@pytest.mark.parametrize(
    "line",
    [
        "NaN 1",
        "+Inf 1",
        "-1 1",
        "x 1",
        "1 99999999999999999999999999",
        "1 -5",
        "1 1 1",
        "",
        "1_0 1",
        "0x10",
    ],
)
def test_what_is_no_amount_or_no_time_is_passed_over(line: str) -> None:
    text = "".join(
        f'{name}{{container="main",namespace="shop-home",pod="web"}} {line}\n'
        for name in ("container_cpu_usage_seconds_total", "container_memory_working_set_bytes")
    )
    assert kubelet_readings(text, [WEB], 2.0) in ({}, {REMOTE: {"main": Reading(0.001, 10, 95.0, 10.0)}})


def api_list(cpu: str = "250m", memory: str = "64Mi", **item: object) -> bytes:
    mine = {
        "metadata": {"name": "web", "namespace": "shop-home", "labels": {}},
        "timestamp": "2026-05-01T12:00:00Z",
        "window": "15.5s",
        "containers": [{"name": each, "usage": {"cpu": cpu, "memory": memory}} for each in ("main", "proxy")],
        **item,
    }
    other = {**mine, "metadata": {"name": "web", "namespace": "other"}}
    return json.dumps({"kind": "PodMetricsList", "items": [mine, other]}).encode()


def test_the_metrics_api_is_read_for_containers_of_ours() -> None:
    assert api_readings(api_list(), [WEB]) == {
        REMOTE: {"main": Reading(seconds("2026-05-01T12:00:00Z"), 64 * 2**20, 95.0, None, 0.25, 15.5)}
    }
    assert api_readings(b'{"items": null}', [WEB]) == {}
    assert api_readings(api_list(timestamp="yesterday"), [WEB]) == {}


@pytest.mark.parametrize(
    "answer",
    [b"", b"[]", b'{"items": 1}', b"\xff", api_list(cpu="x"), api_list(cpu="1e999999"), api_list(memory="-1")],
)
def test_what_is_no_list_of_metrics_is_an_error(answer: bytes) -> None:
    with pytest.raises(ValueError, match=r"PodMetrics|amount|quantity"):
        api_readings(answer, [WEB])


def test_a_subject_is_taken_from_a_pod_and_its_mirror() -> None:
    local = pod(spec={"initContainers": [container("init")]}, status={"startTime": "2026-05-01T11:00:00Z"})
    status = running()
    status["containerStatuses"].append(container_status("injected"))
    mirror = mirror_of(local, status=status)
    found = subject(local, mirror)
    assert (found.key, found.remote, found.uid) == (local.key, mirror.key, local.uid)
    assert found.containers == {"main", "init"}
    assert found.running == dict.fromkeys(("main", "injected"), seconds("2026-05-01T11:00:00Z"))
    assert found.started_s == seconds("2026-05-01T11:00:00Z")
    assert running_names(local, mirror) == [("main", "app:1")]


@dataclass
class Books:
    """A ledger and its newest look."""

    ledger: Ledger = field(default_factory=lambda: Ledger(100.0))
    now_s: float = 100.0

    def look(self, *, of: Subject = WEB, at: float | None = None, **readings: Reading) -> Usage:
        self.now_s = self.now_s + 10 if at is None else at
        return self.ledger.book([of], {of.remote: readings} if readings else {}, self.now_s)


def cpu(usage: Usage, name: str = "main") -> float:
    return usage.pods[0].containers[name].cpu_s


def test_a_counter_is_shown_as_it_is_and_the_node_counts_what_it_saw_burn() -> None:
    books = Books()
    first = books.look(main=Reading(109.0, 5, 50.0, 1000.0))
    assert cpu(first) == 1000.0
    assert first.node.cpu_s == pytest.approx(0, abs=1e-5)  # burnt before we looked
    second = books.look(main=Reading(119.0, 5, 50.0, 1004.0))
    assert cpu(second) == 1004.0
    assert second.node.cpu_s == pytest.approx(4, abs=1e-5)
    assert second.pods[0].containers["main"].cores == pytest.approx(0.4)
    assert (second.node.time_s, second.node.memory, second.pods[0].whole.cpu_s) == (119.0, 5, 1004.0)
    # A container that started since the last look is news of the node, whole.
    third = books.look(main=Reading(129.0, 5, 50.0, 1004.0), side=Reading(128.0, 7, 125.0, 2.0))
    assert third.node.cpu_s == pytest.approx(6, abs=1e-5)
    assert third.node.memory == 12


def test_rates_become_a_counter() -> None:
    books = Books()
    assert cpu(books.look(main=Reading(105.0, 5, 95.0, cores=0.5, window_s=4.0))) == 2.0
    assert cpu(books.look(main=Reading(105.0, 5, 95.0, cores=0.5, window_s=4.0))) == 2.0  # not measured again yet
    assert cpu(books.look(main=Reading(125.0, 5, 95.0, cores=0.25, window_s=4.0))) == 7.0


def test_a_restart_begins_anew_and_the_pod_goes_on() -> None:
    books = Books()
    books.look(main=Reading(109.0, 5, 50.0, 1000.0))
    again = books.look(main=Reading(119.0, 5, 112.0, 0.5))
    assert (cpu(again), again.pods[0].containers["main"].started_s) == (0.5, 112.0)
    assert again.pods[0].whole.cpu_s == 1000.5
    assert again.node.cpu_s == pytest.approx(0.5, abs=1e-5)


def test_a_change_of_source_is_no_step() -> None:
    books = Books()
    books.look(main=Reading(109.0, 5, 50.0, 1000.0))
    rate = books.look(main=Reading(119.0, 5, 50.9, cores=0.5, window_s=10))
    assert (cpu(rate), rate.pods[0].containers["main"].started_s) == (1005.0, 50.0)
    assert cpu(books.look(main=Reading(129.0, 5, 50.0, 4000.0))) == 1010.0
    assert cpu(books.look(main=Reading(139.0, 5, 50.0, 4001.0))) == 1011.0


def test_nothing_is_ever_zero_and_a_pod_nobody_measured_is_not_shown() -> None:
    usage = Books().look(main=Reading(109.0, 0, 50.0, 0.0))
    for point in (usage.node, usage.pods[0].whole, usage.pods[0].containers["main"]):
        assert int(point.cpu_s * 1e9) > 0
        assert point.memory > 0
    assert Books().look().pods == []


def test_the_books_of_a_pod_end_with_it() -> None:
    books = Books()
    books.look(main=Reading(109.0, 5, 50.0, 1000.0))
    books.look(of=WEB._replace(uid="u2"), main=Reading(119.0, 5, 112.0, 1.0))
    assert {uid for uid, _ in books.ledger._containers} == set(books.ledger._pods) == {"u2"}


@given(
    st.lists(
        st.tuples(
            st.floats(0, 30), st.one_of(st.none(), st.floats(0, 1e6)), st.floats(0, 64), st.sampled_from([50.0, 50.9])
        ),
        max_size=20,
    )
)
def test_counters_and_times_only_rise_while_a_container_lives(
    looks: list[tuple[float, float | None, float, float]],
) -> None:
    books, time_s, shown = Books(), 100.0, list[Usage]()
    for step_s, total_s, cores, started_s in looks:
        time_s += step_s
        shown.append(books.look(at=time_s, main=Reading(time_s, 1, started_s, total_s, cores, 1.0)))
    for before, after in pairwise(shown):
        for old, new in zip(points(before), points(after), strict=True):
            assert new.cpu_s >= old.cpu_s
            assert new.time_s >= old.time_s


def points(usage: Usage) -> list[Point]:
    return [usage.node, usage.pods[0].whole, usage.pods[0].containers["main"]]


def usage_of_web() -> Usage:
    books = Books()
    books.look(main=Reading(109.0, 5, 95.5, 1.0), side=Reading(109.25, 7, 0.0, 2.0))
    return books.look(main=Reading(119.0, 5, 95.5, 1.5), side=Reading(119.25, 7, 0.0, 2.0))


def test_resource_metrics_read_as_a_kubelets() -> None:
    assert (
        resource_metrics(usage_of_web()).decode()
        == """\
# HELP container_cpu_usage_seconds_total [STABLE] Cumulative cpu time consumed by the container in core-seconds
# TYPE container_cpu_usage_seconds_total counter
container_cpu_usage_seconds_total{container="main",namespace="shop",pod="web"} 1.5 119000
container_cpu_usage_seconds_total{container="side",namespace="shop",pod="web"} 2 119250
# HELP container_memory_working_set_bytes [STABLE] Current working set of the container in bytes
# TYPE container_memory_working_set_bytes gauge
container_memory_working_set_bytes{container="main",namespace="shop",pod="web"} 5 119000
container_memory_working_set_bytes{container="side",namespace="shop",pod="web"} 7 119250
# HELP container_start_time_seconds [STABLE] Start time of the container since unix epoch in seconds
# TYPE container_start_time_seconds gauge
container_start_time_seconds{container="main",namespace="shop",pod="web"} 95.5
# HELP node_cpu_usage_seconds_total [STABLE] Cumulative cpu time consumed by the node in core-seconds
# TYPE node_cpu_usage_seconds_total counter
node_cpu_usage_seconds_total 0.500001 119250
# HELP node_memory_working_set_bytes [STABLE] Current working set of the node in bytes
# TYPE node_memory_working_set_bytes gauge
node_memory_working_set_bytes 12 119250
# HELP pod_cpu_usage_seconds_total [STABLE] Cumulative cpu time consumed by the pod in core-seconds
# TYPE pod_cpu_usage_seconds_total counter
pod_cpu_usage_seconds_total{namespace="shop",pod="web"} 3.5 119250
# HELP pod_memory_working_set_bytes [STABLE] Current working set of the pod in bytes
# TYPE pod_memory_working_set_bytes gauge
pod_memory_working_set_bytes{namespace="shop",pod="web"} 12 119250
# HELP resource_scrape_error [STABLE] 1 if there was an error while getting container metrics, 0 otherwise
# TYPE resource_scrape_error gauge
resource_scrape_error 0
"""
    )


def test_when_the_peer_tells_nothing_only_the_error_is_shown() -> None:
    assert [line for line in resource_metrics(Ledger(1.0).failed()).decode().splitlines() if line[0] != "#"] == [
        "resource_scrape_error 1"
    ]


def test_the_summary_reads_as_a_kubelets() -> None:
    found = json.loads(summary(usage_of_web(), "edge"))
    assert found["node"]["nodeName"] == "edge"
    (item,) = found["pods"]
    assert item["podRef"] == {"name": "web", "namespace": "shop", "uid": "u1"}
    main, side = item["containers"]
    assert main == {
        "name": "main",
        "startTime": "1970-01-01T00:01:35Z",
        "cpu": {"time": "1970-01-01T00:01:59Z", "usageNanoCores": 50_000_000, "usageCoreNanoSeconds": 1_500_000_000},
        "memory": {"time": "1970-01-01T00:01:59Z", "workingSetBytes": 5},
    }
    assert side["startTime"] is None
    assert item["cpu"]["usageCoreNanoSeconds"] == 3_500_000_000


CADVISOR = """\
# HELP cadvisor_version_info A metric.
# TYPE cadvisor_version_info gauge
cadvisor_version_info{cadvisorVersion="x"} 1
# HELP container_fs_reads_total Cumulative count of reads
# TYPE container_fs_reads_total counter
container_fs_reads_total{container="main",id="/a\\"b,}",namespace="shop-home",pod="web"} 3 1795502321149
container_fs_reads_total{container="main",id="/b",namespace="other",pod="web"} 4 1795502321149
container_fs_reads_total{container="",id="/",namespace="",pod=""} 9
# TYPE prober_probe_duration_seconds histogram
prober_probe_duration_seconds_bucket{namespace="shop-home",pod="web",le="+Inf"} 2
prober_probe_duration_seconds_sum{namespace="shop-home",pod="web"} 0.25
# TYPE prober_probe_total counter
prober_probe_total{namespace="shop-home",pod="web",pod_uid="r1"} 2
nonsense{pod="web"
"""


def test_only_our_pods_lines_are_kept_under_homes_names() -> None:
    def rename(namespace: str, name: str) -> Renamed | None:
        return Renamed("shop", "u1") if (namespace, name) == ("shop-home", "web") else None

    text = written(
        merged([relabelled(CADVISOR, rename), relabelled(CADVISOR.replace('"main"', '"x"'), rename)])
    ).decode()
    assert text.splitlines()[:4] == [
        "# HELP container_fs_reads_total Cumulative count of reads",
        "# TYPE container_fs_reads_total counter",
        'container_fs_reads_total{container="main",id="/a\\"b,}",namespace="shop",pod="web"} 3 1795502321149',
        'container_fs_reads_total{container="x",id="/a\\"b,}",namespace="shop",pod="web"} 3 1795502321149',
    ]
    assert 'prober_probe_total{namespace="shop",pod="web",pod_uid="u1"} 2' in text
    assert not {"other", "shop-home", "r1", "cadvisor_version_info"} & set(text.replace('"', " ").split())
    names = [family.name for family in text_string_to_metric_families(text)]
    assert names == ["container_fs_reads", "prober_probe_duration_seconds", "prober_probe"]


@given(st.text(max_size=200))
def test_no_text_of_a_peer_can_hurt(text: str) -> None:
    assert relabelled(text, lambda namespace, name: None) == {}
    assert kubelet_readings(text, [WEB], 1.0) == {}
