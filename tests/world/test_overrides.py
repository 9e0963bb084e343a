"""Where a peer differs: its Pods get there what its overrides say, home's stay as they are, and misfits are told."""

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from tests.expect import eventually
from tests.world.manifests import DIFFERS, MISFITS, config_map, deployment, pod, secret
from tests.world.vnodes import Space, Vnode, is_ready, origin_uid, peer_config, run_cli, uid
from vnode import names
from vnode.devcluster.cluster import Cluster


@pytest.fixture
def store(vnode: Vnode, peer_b: Cluster, new_space: Callable[..., Space]) -> Space:
    """A home namespace whose Pods run at peer-b through edge-b."""
    assert "edge-b" in vnode.nodes
    made: Space = new_space(peer_b, "edge-b")
    return made


def test_a_pod_gets_at_the_peer_what_its_overrides_say_and_home_stays_as_it_is(store: Space, vnode: Vnode) -> None:
    store.create(secret("edge-registry", {"a": "b"}))
    amounts = {"memory": "64Mi"}
    resources = {"requests": {"cpu": "100m", **amounts}, "limits": {"cpu": "2", **amounts}}
    container = {
        "name": "main",
        "image": "simulated:1",
        "env": [{"name": "PLACE", "value": "home"}],
        "resources": resources,
    }
    store.create(deployment("differs", "edge-b", 1, labels=DIFFERS, containers=[container]))
    store.rolled_out("deployment/differs")
    ((name, mirror),) = store.mirrors().items()
    (there,) = mirror["spec"]["containers"]
    assert there["image"] == "mirror.edge:5000/hub/library/simulated:1"
    assert there["env"] == [{"name": "PLACE", "value": "edge"}]
    assert there["resources"] == {"requests": {"cpu": "100m", **amounts}, "limits": {"cpu": "500m", **amounts}}
    assert mirror["spec"]["hostAliases"] == [{"ip": "10.0.0.9", "hostnames": ["registry"]}]
    assert mirror["spec"]["imagePullSecrets"] == [{"name": "edge-registry"}]
    assert store.peer.find("Secret", store.remote, "edge-registry")
    home = store.pods()[name]
    (here,) = home["spec"]["containers"]
    assert (here["image"], here["env"], here["resources"]) == ("simulated:1", container["env"], resources)
    assert not home["spec"].keys() & {"hostAliases", "imagePullSecrets"}

    shown = run_cli("diff", "-c", vnode.config, "-n", store.name, name, "--kubeconfig", vnode.home.plane.kubeconfig)
    assert (shown.returncode, shown.stderr) == (0, "")
    lines = shown.stdout.splitlines()
    assert lines[:2] == [f"--- home: {store.name}/{name}", f"+++ edge-b: {store.remote}/{name}"]
    assert {"-    image: simulated:1", "+    image: mirror.edge:5000/hub/library/simulated:1"} <= set(lines)
    assert f"+    {names.ORIGIN_UID}: {uid(home)}" in lines
    assert f"+    {names.ORIGIN_CLUSTER_UID}: {mirror['metadata']['labels'][names.ORIGIN_CLUSTER_UID]}" in lines


def test_a_pod_that_an_override_does_not_fit_stays_pending_and_says_why(store: Space, vnode: Vnode) -> None:
    store.create(pod("misfits", "edge-b", labels=MISFITS))
    told = "overrides[1].patch[0]: replace /spec/hostname: there is no such place in the Pod"
    assert store.wait_refused("misfits", names.OVERRIDE_FAILED) == told
    assert not store.mirrors()
    shown = run_cli(
        "diff", "-c", vnode.config, "-n", store.name, "misfits", "--kubeconfig", vnode.home.plane.kubeconfig
    )
    assert (shown.returncode, shown.stdout) == (1, "")
    assert shown.stderr == f"vnode: Pod {store.name}/misfits cannot run at edge-b: {names.OVERRIDE_FAILED}: {told}\n"


def test_diff_tells_what_it_cannot_find_and_what_it_cannot_do(store: Space, vnode: Vnode) -> None:
    asked = ("diff", "-c", vnode.config, "--kubeconfig", vnode.home.plane.kubeconfig, "-n", store.name, "absent")
    for more, code, told in (
        ((), 1, 'pods "absent" not found'),
        (("-f", "x.yaml"), 2, "expected either a Pod's name or"),
    ):
        done = run_cli(*asked, *more)
        assert (done.returncode, done.stdout) == (code, "")
        (line,) = done.stderr.splitlines()
        assert line.startswith("vnode: ")
        assert told in line


def test_changed_overrides_reach_running_pods_by_what_can_be_changed_in_place(
    own_vnode: Callable[..., Vnode], peer_a: Cluster, new_space: Callable[..., Space]
) -> None:
    def differing(**override: Any) -> dict[str, Any]:
        return peer_config("edge-differs", peer_a, overrides=[override])

    vnode = own_vnode(differing(labels={"tier": "1"})).start().wait_ready()
    space = new_space(peer_a, "edge-differs")
    variable = {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "a"}}}
    container = {"name": "main", "image": "simulated:1", "env": [variable]}
    space.create(config_map("settings", {"a": "b"}), pod("runs", "edge-differs", containers=[container]))
    space.wait_ready("runs")
    first = space.mirror("runs")
    assert first is not None
    assert first["metadata"]["labels"]["tier"] == "1"
    vnode.terminate()

    changed = differing(
        labels={"tier": "2"},
        images=[{"exact": "simulated:1", "tag": "2"}],
        containers=[{"env": {"A": "b"}, "resources": {"limits": {"cpu": "1"}}}],  # which needs no ConfigMap
        patch=[{"op": "add", "path": "/spec/containers/-", "value": {"name": "mesh", "image": "simulated:1"}}],
    )
    settings = yaml.safe_load(vnode.config.read_text())
    vnode.config.write_text(yaml.safe_dump({**settings, "peers": [changed]}))
    vnode.start().wait_ready()

    def reached() -> bool:
        mirror = space.mirror("runs") or {}
        assert uid(mirror) == uid(first)
        assert mirror["metadata"]["labels"]["tier"] == "2"
        (container,) = mirror["spec"]["containers"]
        assert (container["image"], container["env"]) == ("simulated:2", [variable])
        return is_ready(space.pod("runs"))

    eventually("the mirror has what can be changed in place", reached)
    space.create(pod("new", "edge-differs"))
    space.wait_ready("new")
    mirror = space.mirror("new")
    assert mirror is not None
    main, mesh = mirror["spec"]["containers"]
    assert (main["image"], main["env"], mesh["name"]) == ("simulated:2", [{"name": "A", "value": "b"}], "mesh")
    assert origin_uid(mirror) == uid(space.pods()["new"])
    # What the Pod that runs was made with stays with it, and goes with it.
    assert space.peer.find("ConfigMap", space.remote, "settings")
    space.home.delete("Pod", space.name, "runs")
    eventually("the copy goes", lambda: not space.peer.find("ConfigMap", space.remote, "settings"))
