"""A kubelet's health as it tells it, well and unwell."""

import pytest

from vnode.kubelet.health import health, health_metrics

WHY = ["edge: home-pods not synced", "edge: peer-pods not synced"]
UNWELL = "[+]ping ok\n[+]log ok\n[-]syncloop failed: reason withheld\nhealthz check failed\n"


@pytest.mark.parametrize(
    ("check", "problems", "verbose", "answer"),
    [
        ("", [], False, (200, "ok")),
        ("", [], True, (200, "[+]ping ok\n[+]log ok\n[+]syncloop ok\nhealthz check passed\n")),
        ("", WHY, False, (500, UNWELL)),
        ("", WHY, True, (500, UNWELL)),
        ("ping", WHY, False, (200, "ok")),
        ("log", WHY, False, (200, "ok")),
        ("syncloop", [], False, (200, "ok")),
        ("syncloop", WHY, False, (500, f"internal server error: {WHY[0]}; {WHY[1]}\n")),
    ],
)
def test_health_is_told_in_a_kubelets_words(
    check: str, problems: list[str], verbose: bool, answer: tuple[int, str]
) -> None:
    assert health(check, problems, verbose=verbose) == answer


@pytest.mark.parametrize(("problems", "value"), [([], 1), (WHY, 0)])
def test_health_is_a_metric_too(problems: list[str], value: int) -> None:
    lines = health_metrics(problems).decode().splitlines()
    assert lines[2:] == [
        'kubernetes_healthcheck{name="log",type="healthz"} 1',
        'kubernetes_healthcheck{name="ping",type="healthz"} 1',
        f'kubernetes_healthcheck{{name="syncloop",type="healthz"}} {value}',
    ]
