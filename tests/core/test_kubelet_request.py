"""Paths of a kubelet's port: what they name, what is refused, and which right each one needs."""

import pytest

from vnode.kube.client import Client
from vnode.kube.credentials import from_kubeconfig
from vnode.kube.objects import Key
from vnode.kubelet.auth import Attributes, attributes
from vnode.kubelet.request import Call, Located, NotStarted, Refused, find, label, parse
from vnode.telemetry.metrics import Metrics

SERVED = [
    ("GET", "/healthz", Call("healthz")),
    ("GET", "/healthz/syncloop", Call("healthz/syncloop")),
    # Handlers that a kubelet has outside of go-restful answer to any method that is allowed there.
    ("PUT", "/healthz", Call("healthz")),
    ("POST", "/metrics/cadvisor", Call("metrics/cadvisor")),
    ("OPTIONS", "/configz", Call("configz")),
    ("GET", "/containerLogs/shop/web-1/app", Call("containerLogs", "shop", "web-1", "app")),
    ("POST", "/exec/shop/web-1/app", Call("exec", "shop", "web-1", "app")),
    ("GET", "/exec/shop/web-1/u-1/app", Call("exec", "shop", "web-1", "app", "u-1")),
    ("POST", "/attach/shop/web.1/app", Call("attach", "shop", "web.1", "app")),
    ("POST", "/portForward/shop/web-1", Call("portForward", "shop", "web-1")),
    ("GET", "/portForward/shop/web-1/u-1", Call("portForward", "shop", "web-1", "", "u-1")),
    ("GET", "/pods", Call("pods")),
    ("GET", "/pods/", Call("pods")),
    ("GET", "/runningpods/", Call("runningpods")),
    ("GET", "/stats/summary", Call("stats/summary")),
    ("POST", "/stats/summary/", Call("stats/summary")),
    ("GET", "/metrics", Call("metrics")),
    ("GET", "/metrics/resource", Call("metrics/resource")),
    ("GET", "/configz", Call("configz")),
]

TRICKS = [
    "/containerLogs/shop/../kube-system/web-1/app",
    "/containerLogs/shop/web-1/app/..",
    "/containerLogs/./shop/web-1/app",
    "/containerLogs/shop/web-1%2f..%2fother/app",
    "/containerLogs/shop/%2e%2e/app",
    "/%63ontainerLogs/shop/web-1/app",
    "/containerLogs//web-1/app",
    "//containerLogs/shop/web-1/app",
    "/containerLogs/shop/web-1/app//",
    "/containerLogs/shop/web 1/app",
    "/containerLogs/shop/web-1/app;x=1",
    "/containerLogs/shop/web-1/app#x",
    "/containerLogs/shop/web-1\\app",
    "/containerLogs/shop/wéb/app",
    "http://elsewhere/containerLogs/shop/web-1/app",
    "containerLogs/shop/web-1/app",
    "*",
    "",
]


@pytest.mark.parametrize(("method", "path", "call"), SERVED)
def test_a_path_names_one_call(method: str, path: str, call: Call) -> None:
    assert parse(method, path) == call


@pytest.mark.parametrize("path", TRICKS)
def test_a_path_trick_is_refused_not_normalised(path: str) -> None:
    with pytest.raises(Refused) as refused:
        parse("GET", path)
    assert refused.value.code == 400


@pytest.mark.parametrize(
    ("method", "path", "code", "allow"),
    [
        ("GET", "/", 404, ""),
        ("GET", "/pods/shop", 404, ""),
        ("GET", "/stats", 404, ""),
        ("GET", "/metrics/", 404, ""),
        ("GET", "/metrics/other", 404, ""),
        ("GET", "/allocatedPods", 404, ""),
        ("GET", "/healthz/", 404, ""),
        ("GET", "/containerLogs", 404, ""),
        ("GET", "/containerLogs/shop/web-1", 404, ""),
        ("GET", "/containerLogs/shop/web-1/app/", 404, ""),
        ("GET", "/containerLogs/shop/web-1/app/more", 404, ""),
        ("GET", "/containerlogs/shop/web-1/app", 404, ""),
        ("POST", "/run/shop/web-1/app", 405, ""),
        ("POST", "/pods", 405, "GET"),
        ("PUT", "/stats/summary", 405, "GET, POST"),
        ("POST", "/checkpoint/shop/web-1/app", 404, ""),
        ("POST", "/containerLogs/shop/web-1/app", 405, "GET"),
        ("HEAD", "/containerLogs/shop/web-1/app", 405, "GET"),
        ("DELETE", "/exec/shop/web-1/app", 405, "GET, POST"),
        ("GET", "/logs/", 405, ""),
        ("GET", "/logs/syslog", 405, ""),
        ("GET", "/debug/pprof/heap", 405, ""),
    ],
)
def test_what_is_not_served_says_so(method: str, path: str, code: int, allow: str) -> None:
    with pytest.raises(Refused) as refused:
        parse(method, path)
    assert (refused.value.code, refused.value.allow) == (code, allow)


@pytest.mark.parametrize(
    ("method", "path", "wanted"),
    [
        ("GET", "/stats/summary", [("get", "stats")]),
        ("POST", "/stats", [("create", "stats")]),
        ("GET", "/metrics", [("get", "metrics")]),
        ("GET", "/metrics/resource", [("get", "metrics")]),
        ("GET", "/logs/", [("get", "log")]),
        ("POST", "/checkpoint/a/b/c", [("create", "checkpoint")]),
        ("GET", "/statusz", [("get", "statusz")]),
        ("GET", "/flagz", [("get", "configz")]),
        ("GET", "/pods", [("get", "pods"), ("get", "proxy")]),
        ("GET", "/runningpods/", [("get", "pods"), ("get", "proxy")]),
        ("GET", "/allocatedPods/a/b", [("get", "pods"), ("get", "proxy")]),
        ("GET", "/healthz", [("get", "healthz"), ("get", "proxy")]),
        ("GET", "/healthz/ping", [("get", "healthz"), ("get", "proxy")]),
        ("GET", "/configz", [("get", "configz"), ("get", "proxy")]),
        ("GET", "/containerLogs/a/b/c", [("get", "proxy")]),
        ("POST", "/run/a/b/c", [("create", "proxy")]),
        ("GET", "/exec/a/b/c", [("create", "proxy")]),
        ("POST", "/exec/a/b/c", [("create", "proxy")]),
        ("GET", "/attach/a/b/c", [("create", "proxy")]),
        ("GET", "/portForward/a/b", [("create", "proxy")]),
        ("PUT", "/debug/flags/v", [("update", "proxy")]),
        ("PATCH", "/anything", [("patch", "proxy")]),
        ("DELETE", "/metricsandmore", [("delete", "proxy")]),
        ("OPTIONS", "/metrics", [("", "metrics")]),
        # What is not spelled as a route gets none of its lesser rights.
        ("GET", "//metrics", [("get", "proxy")]),
        ("GET", "/%6detrics", [("get", "proxy")]),
        ("GET", "metrics", [("get", "proxy")]),
        ("GET", "", [("get", "proxy")]),
    ],
)
def test_rights_are_the_kubelets(method: str, path: str, wanted: list[tuple[str, str]]) -> None:
    assert attributes(method, path) == [Attributes(*one) for one in wanted]


def test_labels_of_metrics_are_bounded() -> None:
    assert label("/containerLogs/a/b/c") == "containerLogs"
    assert label("/healthz") == "healthz"
    assert label("/metrics/resource") == "metrics/resource"
    assert {label(path) for path in ("/x/1", "/x/2", "", "//exec", "/%65xec/a/b/c")} == {"other"}


def test_only_this_nodes_pod_of_that_uid_is_found() -> None:
    client = Client(from_kubeconfig("unused"), "edge", Metrics())
    here = Located(client, Key("shop-home", "web-1"), "u-1")

    def locate(namespace: str, pod: str) -> Located | None:
        if pod == "idle":
            raise NotStarted("PodInitializing")
        return here if (namespace, pod) == ("shop", "web-1") else None

    assert find(locate, Call("containerLogs", "shop", "web-1", "app")) == here
    assert find(locate, Call("exec", "shop", "web-1", "app", "u-1")) == here
    for call, code, text in (
        (Call("containerLogs", "shop", "web-2", "app"), 404, 'pod "web-2" does not exist'),
        (Call("containerLogs", "other", "web-1", "app"), 404, 'pod "web-1" does not exist'),
        (Call("exec", "shop", "web-2", "app"), 404, "pod does not exist"),
        (Call("exec", "shop", "web-1", "app", "u-2"), 500, "pod web-1_shop not found"),
        (Call("attach", "shop", "web-1", "app", "u-2"), 500, "pod web-1_shop not found"),
        (Call("portForward", "shop", "web-1", "", "u-2"), 404, "pod not found"),
        (
            Call("containerLogs", "shop", "idle", "app"),
            400,
            'container "app" in pod "idle" is waiting to start: PodInitializing',
        ),
        (Call("exec", "shop", "idle", "app"), 500, 'container not found ("app")'),
        (Call("attach", "shop", "idle", "app"), 500, "container app not found in pod idle_shop"),
        (Call("portForward", "shop", "idle"), 500, 'pod not found ("idle_shop")'),
    ):
        with pytest.raises(Refused) as refused:
            find(locate, call)
        assert (refused.value.code, refused.value.text) == (code, text)
