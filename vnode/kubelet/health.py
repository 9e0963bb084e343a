"""Whether a node's kubelet is well: the texts of `/healthz`, of its single checks, and of `/metrics/slis`. Pure.

The checks are a kubelet's (k8s.io/kubernetes v1.37 pkg/kubelet/server/server.go, InstallAuthNotRequiredHandlers). Two
of them hold whenever somebody answers; `syncloop` fails while this node's Pods are not served, with the reasons that
`/readyz` on the admin port gives. Called by `reports`.
"""

from collections.abc import Sequence
from typing import Final

CHECKS: Final = ("ping", "log", "syncloop")


def health(check: str, problems: Sequence[str], *, verbose: bool = False) -> tuple[int, str]:
    """Status and text of `/healthz/CHECK`, or with "" of `/healthz`, which withholds the reasons."""
    if check:
        failed = bool(problems) and check == "syncloop"
        return (500, f"internal server error: {'; '.join(problems)}\n") if failed else (200, "ok")
    lines = "".join(
        f"[-]{name} failed: reason withheld\n" if problems and name == "syncloop" else f"[+]{name} ok\n"
        for name in CHECKS
    )
    if problems:
        return 500, f"{lines}healthz check failed\n"
    return 200, f"{lines}healthz check passed\n" if verbose else "ok"


def health_metrics(problems: Sequence[str]) -> bytes:
    """The text of `/metrics/slis`."""
    lines = [
        "# HELP kubernetes_healthcheck [STABLE] This metric records the result of a single healthcheck.",
        "# TYPE kubernetes_healthcheck gauge",
        *(
            f'kubernetes_healthcheck{{name="{name}",type="healthz"}} {int(health(name, problems)[0] == 200)}'
            for name in sorted(CHECKS)
        ),
    ]
    return "".join(f"{line}\n" for line in lines).encode()
