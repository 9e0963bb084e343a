"""Peer objects: what each is decided to be, in the light of all, and when one is to be abandoned."""

from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from vnode import names
from vnode.kube.objects import Object, from_dict
from vnode.peers.objects import Decision, abandon_at, decide
from vnode.peers.status import Said

CLUSTER = "home"


def peer(name: str, created: str = "2026-05-01T12:00:00Z", **spec: Any) -> Object:
    metadata = {"name": name, "uid": name, "creationTimestamp": created}
    return from_dict({"kind": "Peer", "metadata": metadata, "spec": {"secretRef": {"name": name}, **spec}})


def kubeconfig(server: str = "https://peer:6443", **user: Any) -> str:
    return yaml.safe_dump(
        {
            "clusters": [{"name": "c", "cluster": {"server": server}}],
            "users": [{"name": "u", "user": user or {"token": "t"}}],
            "contexts": [{"name": "main", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "main",
        }
    )


def secrets(**texts: str) -> dict[str, dict[str, str]]:
    return {name: {"kubeconfig": text} for name, text in texts.items()}


def one(item: Object, found: Any) -> Decision:
    return decide([item], found, CLUSTER, {})[item.meta.name]


def test_a_right_peer_with_its_secret_is_served() -> None:
    text = kubeconfig()
    decision = one(peer("edge", node={"region": "north"}, capacity={"limits": {"cpu": 4}}), secrets(edge=text))
    assert decision.serves
    assert decision.accepted == Said("True", names.ACCEPTED)
    assert decision.spec is not None
    assert (decision.spec.name, decision.spec.node.region, decision.node_name) == ("edge", "north", "edge")
    assert decision.spec.capacity.limits == {"cpu": "4"}
    assert (decision.kubeconfig, decision.server, decision.secret) == (text, ("https://peer:6443", None), "edge")
    assert "users:" not in repr(decision), "a credential is not to be told by accident"


@pytest.mark.parametrize(
    ("spec", "reason", "message"),
    [
        ({"secretRef": {}}, names.INVALID_SPEC, "secretRef.name: missing"),
        ({"colour": "red"}, names.INVALID_SPEC, "colour: unknown key"),
        ({"node": {"name": "A"}}, names.INVALID_SPEC, "node.name: expected a DNS-1123 subdomain"),
        ({"secretRef": {"name": "other"}}, names.KUBECONFIG_ABSENT, "Secret other, key kubeconfig: there is none"),
        ({"secretRef": {"name": "edge", "key": "b"}}, names.KUBECONFIG_ABSENT, "key b: the Secret has no such key"),
        ({"secretRef": {"name": "junk"}}, names.KUBECONFIG_INVALID, "has no list of contexts"),
        ({"context": "no"}, names.KUBECONFIG_INVALID, "expected one of main in Secret edge, key kubeconfig"),
    ],
)
def test_what_cannot_be_served_says_why(spec: dict[str, Any], reason: str, message: str) -> None:
    found = {**secrets(edge=kubeconfig(), junk="a: b"), "other": "there is none"}
    decision = one(peer("edge", **spec), found)
    assert not decision.serves
    assert (decision.accepted.status, decision.accepted.reason) == ("False", reason)
    assert message in decision.accepted.message


@pytest.mark.parametrize(
    "text",
    [
        "current-context: [s3cret]\ncontexts: []",
        "contexts: [{name: [s3cret], context: {}}]",
        "contexts: [{name: main, context: {user: [s3cret]}}]",
        "users: [{name: s3cret, user: {token: 2024-13-40}}]",
        "s3cret: " + "[" * 500,
        "s3cret: " + "9" * 5000,
        "s3cret: !!bool maybe",
        "s3cret: !!timestamp soon",
        "s3cret: !!int ''",
        kubeconfig().replace("server:", "proxy-url: &s3cret [*s3cret]\n    server:"),
    ],
    ids=range(10),
)
def test_a_text_that_no_kubeconfig_can_be_is_refused_and_not_told(text: str) -> None:
    if "current-context" not in text:
        text += "\ncurrent-context: main\n"
    decisions = decide([peer("a"), peer("b")], secrets(a=text, b=text), CLUSTER, {})
    for decision in decisions.values():
        assert decision.accepted.reason == names.KUBECONFIG_INVALID
        assert decision.accepted.message.startswith("kubeconfig: expected a ")
        assert "s3cret" not in decision.accepted.message


@pytest.mark.parametrize(
    "user",
    [
        {"tokenFile": "/var/run/secrets/kubernetes.io/serviceaccount/token"},
        {"exec": {"command": "sh"}},
        {"auth-provider": {"name": "oidc"}},
        {"client-certificate": "/etc/tls.crt", "client-key": "/etc/tls.key"},
    ],
    ids=lambda user: next(iter(user)),
)
def test_a_kubeconfig_that_has_us_read_files_or_start_programs_is_refused(user: dict[str, Any]) -> None:
    decision = one(peer("edge"), secrets(edge=kubeconfig(**user)))
    assert decision.accepted.reason == names.KUBECONFIG_INVALID
    assert "expected a kubeconfig that holds all it needs" in decision.accepted.message
    assert not decision.kubeconfig


def test_as_long_as_its_secret_is_not_read_nothing_is_said_of_a_peer() -> None:
    decision = one(peer("edge"), {})
    assert decision.accepted.status == "Unknown"
    assert decision.secret == "edge"


def test_of_two_peers_with_one_node_name_the_older_is_served() -> None:
    peers = [
        peer("a", "2026-05-01T12:00:00Z", node={"name": "n"}),
        peer("b", "2026-05-01T11:00:00Z", node={"name": "n"}),
    ]
    found = secrets(a=kubeconfig("https://a"), b=kubeconfig("https://b"))
    for order in (peers, peers[::-1]):
        decisions = decide(order, found, CLUSTER, {})
        assert decisions["b"].serves
        assert decisions["a"].accepted.reason == names.PEER_CONFLICT
        assert "peer b has the node n" in decisions["a"].accepted.message


def test_a_node_name_stays_with_the_peer_that_is_served_when_an_older_one_is_mended() -> None:
    old = peer("old", "2026-05-01T11:00:00Z", node={"name": "n"})
    broken = peer("old", "2026-05-01T11:00:00Z", node={"name": "n", "colour": "red"})
    new = peer("new", node={"name": "n"})
    found = secrets(old=kubeconfig("https://old"), new=kubeconfig("https://new"))
    first = decide([broken, new], found, CLUSTER, {})
    assert first["old"].accepted.reason == names.INVALID_SPEC
    assert first["new"].spec is not None
    served = {"new": (first["new"].spec, first["new"].server)}
    for order in ([old, new], [new, old]):
        then = decide(order, found, CLUSTER, served)
        assert then["new"].serves
        assert then["old"].accepted == Said("False", names.PEER_CONFLICT, then["old"].accepted.message)
        assert "peer new has the node n" in then["old"].accepted.message


@pytest.mark.parametrize(
    ("edit", "freed"),
    [
        ({"node": {"name": "A"}}, False),  # invalid: it runs on as it is
        ({"node": {"name": "m"}, "secretRef": {"name": "absent"}}, False),  # cannot be served so
        ({"node": {"name": "m"}}, True),
    ],
)
def test_what_a_peer_is_served_with_is_its_own_until_it_is_served_otherwise(edit: dict[str, Any], freed: bool) -> None:
    found: dict[str, Any] = {**secrets(a=kubeconfig("https://a"), b=kubeconfig("https://b")), "absent": "none"}
    before = one(peer("a", node={"name": "n"}), found)
    assert before.spec is not None
    older = peer("b", "2026-05-01T11:00:00Z", node={"name": "n"})
    now = decide([older, peer("a", **edit)], found, CLUSTER, {"a": (before.spec, before.server)})
    assert (now["a"].serves, now["b"].serves) == (freed, freed)
    assert freed or now["b"].accepted.reason == names.PEER_CONFLICT


def test_two_peers_of_one_cluster_may_not_share_namespaces_and_of_two_clusters_may() -> None:
    peers = [peer("a"), peer("b")]
    same = decide(peers, secrets(a=kubeconfig(), b=kubeconfig()), CLUSTER, {})
    assert (same["a"].serves, same["b"].accepted.reason) == (True, names.PEER_CONFLICT)
    assert "which is the same cluster" in same["b"].accepted.message
    other = decide(peers, secrets(a=kubeconfig(), b=kubeconfig("https://other")), CLUSTER, {})
    assert (other["a"].serves, other["b"].serves) == (True, True)


@pytest.mark.parametrize(
    ("annotation", "seconds"),
    [
        ("0s", 0),
        ("90s", 90),
        ("5m", 300),
        ("2h", 7200),
        ("soon", None),
        ("-1s", None),
        ("999999999h", None),
        ("9" * 5000 + "s", None),
    ],
)
def test_a_peer_is_abandoned_so_long_after_its_deletion(annotation: str, seconds: int | None) -> None:
    metadata = {
        "name": "edge",
        "deletionTimestamp": "2026-05-01T12:00:00Z",
        "annotations": {names.ABANDON_AFTER: annotation},
    }
    when = abandon_at(from_dict({"kind": "Peer", "metadata": metadata}))
    deleted = datetime(2026, 5, 1, 12, tzinfo=UTC)
    assert (None if when is None else (when - deleted).total_seconds()) == seconds


def test_a_peer_that_is_not_deleted_is_never_abandoned() -> None:
    metadata = {"name": "edge", "annotations": {names.ABANDON_AFTER: "0s"}}
    assert abandon_at(from_dict({"kind": "Peer", "metadata": metadata})) is None
