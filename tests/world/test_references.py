"""What a Pod refers to comes along, follows its home object, and goes when nobody needs it; what cannot, is said."""

import json
from collections.abc import Callable

from tests.expect import eventually
from tests.world.accounts import REFUSED, may_read_secrets
from tests.world.api import Json
from tests.world.manifests import bound, config_map, pod, secret
from tests.world.vnodes import Space, Vnode
from vnode import names
from vnode.devcluster.cluster import Cluster

ENV: Json = {
    "containers": [{"name": "main", "image": "simulated:1", "envFrom": [{"configMapRef": {"name": "settings"}}]}]
}
MOUNT: Json = {"volumes": [{"name": "keys", "secret": {"secretName": "keys"}}]}


def test_config_maps_and_secrets_come_along_follow_updates_and_go(space: Space) -> None:
    space.create(config_map("settings", {"mode": "a"}), secret("keys", {"token": "s3cret"}))
    space.create(config_map("unrelated", {"x": "y"}))
    space.create(pod("user", "edge-a", **ENV, **MOUNT), pod("other", "edge-a", **ENV))
    space.wait_ready("user", "other")
    assert _remote(space, "ConfigMap", "settings")["data"] == {"mode": "a"}
    assert _remote(space, "Secret", "keys")["data"] == space.home.get("Secret", space.name, "keys")["data"]
    assert space.peer.find("ConfigMap", space.remote, "unrelated") is None

    space.home.patch("ConfigMap", space.name, "settings", {"data": {"mode": "b", "more": "c"}})
    space.home.patch("Secret", space.name, "keys", {"stringData": {"token": "other"}})
    eventually(
        "both copies follow",
        lambda: (
            _remote(space, "ConfigMap", "settings")["data"] == {"mode": "b", "more": "c"}
            and _remote(space, "Secret", "keys")["data"] == {"token": "b3RoZXI="}
        ),
    )

    space.home.delete("Pod", space.name, "user")
    eventually("the Secret nobody uses goes", lambda: not space.peer.find("Secret", space.remote, "keys"))
    assert _remote(space, "ConfigMap", "settings")["data"] == {"mode": "b", "more": "c"}  # `other` uses it
    space.home.delete("Pod", space.name, "other")
    eventually("the ConfigMap goes", lambda: not space.peer.find("ConfigMap", space.remote, "settings"))


def test_a_copy_that_is_edited_or_deleted_at_the_peer_is_put_right(space: Space) -> None:
    space.create(config_map("settings", {"mode": "a"}), pod("user", "edge-a", **ENV))
    space.wait_ready("user")
    space.peer.delete("ConfigMap", space.remote, "settings")
    eventually("it is back", lambda: _remote(space, "ConfigMap", "settings")["data"] == {"mode": "a"})


def test_a_pod_waits_for_what_it_refers_to_and_starts_when_it_appears(space: Space) -> None:
    space.create(pod("early", "edge-a", **ENV, **MOUNT))
    message = space.wait_refused("early", names.REFERENCE_NOT_FOUND)
    assert 'ConfigMap "settings"' in message
    assert 'Secret "keys"' in message
    assert space.mirror("early") is None
    space.create(config_map("settings", {}), secret("keys", {}))
    space.wait_ready("early")
    assert space.condition("early", names.REMOTE_CONDITION) == {}


def test_secrets_of_a_namespace_that_vnode_was_not_given_stay_home_and_the_pod_says_so(
    vnode: Vnode, peer_a: Cluster, new_space: Callable[..., Space]
) -> None:
    space = new_space(peer_a, "edge-a", name=REFUSED)
    assert "edge-a" in vnode.nodes
    space.create(secret("keys", {"token": "s3cret"}), pod("user", "edge-a", **MOUNT), pod("plain", "edge-a"))
    space.wait_ready("plain")
    message = space.wait_refused("user", names.REFERENCE_NOT_READABLE)
    assert f"Secret {space.name}/keys: secrets is forbidden" in message
    assert space.mirror("user") is None
    may_read_secrets(space.home.plane, space.name)
    space.wait_ready("user")
    assert _remote(space, "Secret", "keys")["data"] == {"token": "czNjcmV0"}


def test_an_optional_reference_is_not_waited_for(space: Space) -> None:
    optional = {"name": "main", "image": "simulated:1", "envFrom": [{"secretRef": {"name": "no", "optional": True}}]}
    space.create(pod("easy", "edge-a", containers=[optional]))
    space.wait_ready("easy")


def test_an_immutable_config_map_that_was_made_anew_is_copied_anew(space: Space) -> None:
    first = {**config_map("settings", {"mode": "a"}), "immutable": True}
    space.create(first, pod("user", "edge-a", **ENV))
    space.wait_ready("user")
    space.home.delete("ConfigMap", space.name, "settings")
    space.create({**config_map("settings", {"mode": "b"}), "immutable": True})
    eventually("the copy is of the new one", lambda: _remote(space, "ConfigMap", "settings")["data"] == {"mode": "b"})


def test_a_claim_is_refused_with_a_reason(space: Space) -> None:
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    space.create(
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "disk"}, "spec": claim},
        bound("stateful", "edge-a", volumes=[{"name": "disk", "persistentVolumeClaim": {"claimName": "disk"}}]),
    )
    message = space.wait_refused("stateful", names.UNSUPPORTED_FIELD)
    assert message.startswith("spec.volumes[0].persistentVolumeClaim: ")
    assert space.mirror("stateful") is None
    space.kubectl("delete", "pod", "stateful", "--timeout=20s")  # goes as any Pod does


def test_a_pod_the_peer_refuses_says_why_and_starts_once_it_would_not(space: Space) -> None:
    space.create(pod("classy", "edge-a"))
    space.wait_ready("classy")
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "1"}}}
    space.peer.plane.kubectl("-n", space.remote, "create", "-f", "-", input=json.dumps(quota))
    eventually("the quota is counted", lambda: "pods" in _quota(space).get("status", {}).get("used", {}))
    space.create(pod("many", "edge-a"))
    assert "exceeded quota" in space.wait_refused("many", names.REMOTE_REFUSED)
    space.peer.plane.kubectl("-n", space.remote, "delete", "resourcequota", "none")
    space.wait_ready("many")


def test_a_pod_no_peer_node_can_take_tells_the_peers_reason(space: Space) -> None:
    needs = {"requests": {"cpu": "33"}}  # the virtual node has 64, no node of the peer more than 32
    space.create(pod("big", "edge-a", containers=[{"name": "main", "image": "simulated:1", "resources": needs}]))
    condition = eventually("it is told", lambda: space.condition("big", names.REMOTE_CONDITION))
    assert condition["reason"] == "Unschedulable"
    assert "Insufficient cpu" in condition["message"]


def _remote(space: Space, kind: str, name: str) -> Json:
    return space.peer.find(kind, space.remote, name) or {"data": None}


def _quota(space: Space) -> Json:
    return space.peer.plane.get(f"/api/v1/namespaces/{space.remote}/resourcequotas/none")
