"""policy.namespaces: what a home namespace is called at a peer, which may offload, and that names never collide."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vnode.kube.syntax import DNS_LABEL
from vnode.policy.namespaces import (
    LabelSelector,
    NamespaceMap,
    Requirement,
    matches,
    shared,
    valid_template,
)

DEFAULT = "{namespace}-{cluster}"
# Few letters, so that names, targets and affixes meet; lengths around the limit, so that some do not fit.
labels = st.one_of(
    st.from_regex(r"[ab]([ab-]{0,3}[ab])?", fullmatch=True),
    st.from_regex(r"a[a-]{48,61}a", fullmatch=True),
    st.from_regex(r"a{46}-[01]{16}", fullmatch=True),
)
heads = st.sampled_from(["", "a", "b", "a-", "b-", "ab", "a--", "a-b", "ba-"])
templates = st.builds(lambda head, tail: f"{head}{{namespace}}{tail[::-1]}", heads, heads)
pairs = st.lists(st.tuples(labels, labels), max_size=4, unique_by=(lambda pair: pair[0], lambda pair: pair[1])).map(
    dict
)
maps = st.builds(NamespaceMap, template=templates, cluster=st.just("home"), pairs=pairs)
tails = st.sampled_from(["-a", "-b", "a", "-" + "a" * 30, "-" + "b" * 40])  # of which most pairs are disjoint
few_pairs = st.dictionaries(labels, labels, max_size=1)
apart = st.builds(
    NamespaceMap, template=tails.map(lambda tail: f"{{namespace}}{tail}"), cluster=st.just("home"), pairs=few_pairs
)


@pytest.mark.parametrize(
    ("template", "namespace", "remote"),
    [
        (DEFAULT, "shop", "shop-home"),
        ("{namespace}", "shop", "shop"),
        ("{cluster}-{namespace}-x", "shop", "home-shop-x"),
        (DEFAULT, "n" * 58, "n" * 58 + "-home"),  # just fits
    ],
)
def test_the_template_names_the_remote_namespace(template: str, namespace: str, remote: str) -> None:
    assert NamespaceMap(template, "home").remote(namespace) == remote


def test_an_explicit_pair_wins_over_the_template() -> None:
    assert NamespaceMap(DEFAULT, "home", {"shop": "store"}).remote("shop") == "store"


def test_a_name_that_does_not_fit_keeps_its_head_and_gets_a_stable_hash() -> None:
    # The very digits: another release must find the namespaces that this one made.
    assert NamespaceMap(DEFAULT, "home").remote("n" * 59) == "n" * 46 + "-" + "992b5bfe6091f155"


def test_a_name_that_is_a_mapped_target_is_avoided() -> None:
    spaces = NamespaceMap("{namespace}", "home", {"shop": "store"})
    assert spaces.remote("store").startswith("store-")
    assert spaces.remote("store") != spaces.remote("shop")


def test_a_target_that_equals_a_shortened_name_is_avoided_too() -> None:
    shortened = NamespaceMap(DEFAULT, "home").remote("n" * 60)
    spaces = NamespaceMap(DEFAULT, "home", {"shop": shortened})
    assert spaces.remote("n" * 60) not in (shortened, spaces.remote("n" * 61))


def test_a_namespace_called_like_a_shortened_name_is_avoided_too() -> None:
    spaces = NamespaceMap("{namespace}-x", "home")
    shortened = spaces.remote("n" * 62)
    twin = NamespaceMap("{namespace}", "home")
    assert twin.remote(shortened) != shortened


@given(maps, st.sets(labels, min_size=2, max_size=8))
def test_remote_names_are_dns_labels_and_never_collide(spaces: NamespaceMap, namespaces: set[str]) -> None:
    remotes = [spaces.remote(namespace) for namespace in namespaces | set(spaces.pairs)]
    assert all(DNS_LABEL.fullmatch(remote) for remote in remotes)
    assert len(set(remotes)) == len(remotes)


@given(maps, labels)
def test_a_name_does_not_depend_on_pairs_of_other_namespaces(spaces: NamespaceMap, name: str) -> None:
    plain = NamespaceMap(spaces.template, spaces.cluster)
    if name not in spaces.pairs and plain.remote(name) not in spaces.pairs.values():
        assert spaces.remote(name) == plain.remote(name)


@given(maps, labels)
def test_the_claimant_of_a_name_is_the_namespace_that_gets_it(spaces: NamespaceMap, namespace: str) -> None:
    prefix, suffix = spaces.affixes
    expected = None if namespace in spaces.pairs else namespace
    assert spaces.claimant(prefix + namespace + suffix) == expected


@settings(max_examples=300)
@given(apart, apart, st.sets(labels, min_size=1, max_size=8))
def test_maps_without_a_shared_name_never_meet(one: NamespaceMap, other: NamespaceMap, namespaces: set[str]) -> None:
    if shared(one, other) is not None:  # about half of the examples
        return
    ours = {one.remote(namespace) for namespace in namespaces | set(one.pairs)}
    assert ours.isdisjoint(other.remote(namespace) for namespace in namespaces | set(other.pairs))


@given(maps, maps)
def test_sharing_is_mutual_and_everything_shares_with_itself(one: NamespaceMap, other: NamespaceMap) -> None:
    assert (shared(one, other) is None) == (shared(other, one) is None)
    assert shared(one, one) is not None


@given(templates, templates)
def test_templates_that_share_have_a_name_in_common(template: str, template2: str) -> None:
    one, other = NamespaceMap(template, "home"), NamespaceMap(template2, "home")
    pattern = shared(one, other)
    if pattern is None:  # about half of the examples
        return
    example = pattern.replace("*", "x")
    assert one.claimant(example)
    assert other.claimant(example)


@pytest.mark.parametrize(
    ("one", "other", "name"),
    [
        (NamespaceMap(DEFAULT, "home"), NamespaceMap(DEFAULT, "home"), "*-home"),
        (NamespaceMap(DEFAULT, "home"), NamespaceMap("{namespace}", "home"), "*-home"),
        (NamespaceMap("a-{namespace}", "home"), NamespaceMap("{namespace}-b", "home"), "a-*-b"),
        (NamespaceMap("a-{namespace}", "home"), NamespaceMap("b-{namespace}", "home"), None),
        (NamespaceMap("a{namespace}", "home"), NamespaceMap("a-{namespace}", "home"), None),
        (NamespaceMap(DEFAULT, "home"), NamespaceMap("{namespace}-gpu", "home"), None),
        (NamespaceMap(DEFAULT, "home", {"x": "store"}), NamespaceMap("{namespace}-b", "home", {"y": "store"}), "store"),
        (NamespaceMap(DEFAULT, "home", {"x": "x-gpu"}), NamespaceMap("{namespace}-gpu", "home"), "x-gpu"),
    ],
)
def test_maps_share_where_some_namespaces_could_meet(one: NamespaceMap, other: NamespaceMap, name: str | None) -> None:
    assert shared(one, other) == name


@pytest.mark.parametrize("template", ["{namespace}", DEFAULT, "{cluster}-{namespace}-{cluster}", "x{namespace}y"])
def test_a_template_with_the_namespace_once_holds(template: str) -> None:
    assert valid_template(template)


@pytest.mark.parametrize(
    "template",
    [
        "",
        "store",
        "{cluster}",
        "{namespace}-{namespace}",
        "{namespace}-{peer}",
        "-{namespace}",
        "{namespace}_x",
        "{Namespace}",
    ],
)
def test_other_templates_do_not(template: str) -> None:
    assert not valid_template(template)


@pytest.mark.parametrize(
    ("requirement", "labels", "holds"),
    [
        (Requirement("a", "In", ["1", "2"]), {"a": "2"}, True),
        (Requirement("a", "In", ["1", "2"]), {"a": "3"}, False),
        (Requirement("a", "In", ["1", "2"]), {}, False),
        (Requirement("a", "NotIn", ["1"]), {"a": "1"}, False),
        (Requirement("a", "NotIn", ["1"]), {"a": "2"}, True),
        (Requirement("a", "NotIn", ["1"]), {}, True),
        (Requirement("a", "Exists"), {"a": ""}, True),
        (Requirement("a", "Exists"), {}, False),
        (Requirement("a", "DoesNotExist"), {"a": ""}, False),
        (Requirement("a", "DoesNotExist"), {}, True),
    ],
)
def test_selectors_match_as_the_apiserver_does(requirement: Requirement, labels: dict[str, str], holds: bool) -> None:
    assert matches(LabelSelector({}, [requirement]), labels) is holds
    assert not matches(LabelSelector({"b": "x"}, [requirement]), labels)
    assert matches(LabelSelector(), labels)


def test_kube_namespaces_stay_home_unless_a_pair_names_them() -> None:
    spaces = NamespaceMap(DEFAULT, "home", {"kube-public": "theirs"}, LabelSelector())
    assert not spaces.offloads("kube-system", {})
    assert spaces.offloads("kube-public", {})
    assert spaces.offloads("shop", {})


def test_the_selector_says_which_namespaces_offload() -> None:
    spaces = NamespaceMap(DEFAULT, "home", {"shop": "store"}, LabelSelector({"offload": "yes"}))
    assert spaces.offloads("web", {"offload": "yes"})
    assert not spaces.offloads("web", {})
    assert not spaces.offloads("shop", {})


def test_where_only_pairs_count_nothing_else_offloads_and_no_other_name_is_given() -> None:
    few = NamespaceMap("{namespace}-{cluster}", "home", {"shop": "team-a"}, mapped_only=True)
    assert [few.offloads(name, {}) for name in ("shop", "blog", "kube-system")] == [True, False, False]
    assert few.places == ("team-a",)
    everywhere = NamespaceMap("{namespace}-{cluster}", "home", {"shop": "team-a"})
    assert everywhere.places == ("",)


def test_two_maps_of_pairs_alone_meet_only_where_a_pair_says_so() -> None:
    one = NamespaceMap("{namespace}-{cluster}", "home", {"shop": "team-a"}, mapped_only=True)
    other = NamespaceMap("{namespace}-{cluster}", "home", {"blog": "team-b"}, mapped_only=True)
    assert shared(one, other) is None
    assert shared(one, NamespaceMap("{namespace}", "home", {"blog": "team-a"}, mapped_only=True)) == "team-a"
    assert shared(one, NamespaceMap("team-{namespace}", "home")) == "team-a"
