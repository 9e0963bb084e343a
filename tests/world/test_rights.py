"""Least privilege, shown: everything ran under the shipped roles, and the audit logs say what of them was used.

These tests come last (`conftest`). What no test here makes vnode use is named, with where it is used instead.
"""

from pathlib import Path

import pytest

from tests.world.accounts import REFUSED, granted, uses
from vnode import rights
from vnode.devcluster.realnode import available

GRANTED = {
    "home": (*rights.HOME, *rights.OFFLOADING, *rights.HOME_PEERS, *rights.HOME_OWN),
    "peer": (
        *rights.PEER_NAMESPACE,
        *rights.PEER_MAPPED,
        *rights.PEER_CLUSTER,
        *rights.PEER_KUBELETS,
        *rights.PEER_SELF,
    ),
}
# Asked by the admission policy `vnode-guard`, on our behalf: no request of its own.
ASKED_BY_POLICY = {("virtualnodes.vnode.dev", "serve")}
# A Peer's token is renewed after two weeks: tests/loop/test_renewal.py.
IN_TWO_WEEKS = {("secrets", "patch")}
# Only where containers truly run.
REAL = {f"pods/{verb}" for verb in ("log", "exec", "attach", "portforward", "ephemeralcontainers", "resize")}
REAL |= {"pods.metrics.k8s.io", "nodes/proxy"}


@pytest.mark.parametrize("side", GRANTED)
def test_vnode_asked_for_nothing_that_it_is_not_granted(side: str) -> None:
    refused = {use for use in uses(side) if use.refused and not use.namespace.startswith(REFUSED)}
    # An apiserver that has just started refuses everybody everything: it has not read its roles yet.
    assert {use for use in refused if (use.resource, use.verb) not in granted(GRANTED[side])} == set()


def test_no_secret_was_asked_for_where_none_may_be_read() -> None:
    asked = {use.namespace for use in uses("home") if use.resource == "secrets"}
    assert "" not in asked


@pytest.mark.parametrize("side", GRANTED)
def test_no_right_is_granted_that_is_not_used(side: str, request: pytest.FixtureRequest) -> None:
    run = {item.path.name for item in request.session.items}
    if missing := {path.name for path in Path(__file__).parent.glob("test_*.py")} - run:
        pytest.skip(f"only a run of all world tests uses every right: {', '.join(sorted(missing))} did not run")
    used = {(use.resource, use.verb) for use in uses(side) if not use.refused}
    unused = granted(GRANTED[side]) - used - ASKED_BY_POLICY - IN_TWO_WEEKS
    if available():
        unused = {(resource, verb) for resource, verb in unused if resource not in REAL}
    assert unused == set()
