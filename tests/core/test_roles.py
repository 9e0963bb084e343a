"""roles: what the shipped roles grant, and above all what they do not."""

from typing import Any

import pytest

from vnode import roles
from vnode.rights import Right

PEER_ROLES = {
    "cluster": roles.peer_cluster(),
    "namespaces": roles.peer_namespaces(["a", "b"], "vnode-of-x"),
    "kubelets": roles.peer_kubelets(),
}


def grants(items: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """Each resource with each verb, of all roles."""
    return {
        (resource, verb)
        for item in items
        for rule in item.get("rules", ())
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_equal_verbs_of_one_group_are_one_rule() -> None:
    rights = [Right("pods", ("get",), ""), Right("nodes", ("get",), ""), Right("peers/status.vnode.dev", ("get",), "")]
    assert roles.rules(rights) == [
        {"apiGroups": [""], "resources": ["pods", "nodes"], "verbs": ["get"]},
        {"apiGroups": ["vnode.dev"], "resources": ["peers/status"], "verbs": ["get"]},
    ]


def test_at_home_no_secret_can_be_read_but_where_a_role_is_bound() -> None:
    bound = {item["roleRef"]["name"] for item in roles.home() if item["kind"] == "ClusterRoleBinding"}
    everywhere = [item for item in roles.home() if item["kind"] == "ClusterRole" and item["metadata"]["name"] in bound]
    assert everywhere
    assert not {resource for resource, _ in grants(everywhere)} & {"secrets", "serviceaccounts/token"}
    (binding,) = roles.offloading(["shop"])
    assert (binding["kind"], binding["metadata"]["namespace"]) == ("RoleBinding", "shop")


@pytest.mark.parametrize("items", [roles.home(), *PEER_ROLES.values()])
def test_no_role_grants_a_wildcard_or_a_way_to_more_rights(items: list[dict[str, Any]]) -> None:
    for resource, verb in grants(items):
        assert "*" not in (resource, verb)
        assert verb not in ("bind", "escalate", "impersonate", "approve", "sign")
        assert not resource.endswith(("roles", "rolebindings", "/approval"))


def test_a_nodes_proxy_is_no_part_of_the_ordinary_roles() -> None:
    assert {name for name, items in PEER_ROLES.items() if ("nodes/proxy", "get") in grants(items)} == {"kubelets"}


def test_in_a_few_namespaces_nothing_is_cluster_wide() -> None:
    assert {item["metadata"].get("namespace") for item in PEER_ROLES["namespaces"]} == {"a", "b"}


def test_an_account_makes_tokens_for_itself_alone_and_shares_no_binding() -> None:
    items = PEER_ROLES["namespaces"]
    (rule,) = (rule for item in items for rule in item.get("rules", ()) if "serviceaccounts/token" in rule["resources"])
    assert (rule["verbs"], rule["resourceNames"]) == (["create"], ["vnode-of-x"])
    bindings = [item for item in items if item["kind"] == "RoleBinding"]
    assert {subject["name"] for item in bindings for subject in item["subjects"]} == {"vnode-of-x"}
    assert all(item["metadata"]["name"].endswith("-vnode-of-x") for item in bindings)


def test_nodes_can_be_named() -> None:
    (rule,) = (rule for rule in roles.home_role(["edge"])["rules"] if "serve" in rule["verbs"])
    assert rule["resourceNames"] == ["edge"]
    assert all("resourceNames" not in rule for rule in roles.home_role()["rules"])
