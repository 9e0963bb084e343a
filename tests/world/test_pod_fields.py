"""Every field of a Pod that the live apiserver knows has a fate in `vnode.pods.fields`."""

import json

import pytest

from tests.expect import eventually
from tests.world.api import STRATEGIC
from tests.world.manifests import bound
from tests.world.vnodes import Space
from vnode.devcluster.cluster import Cluster
from vnode.pods.fields import SPEC, STATUS, VOLUMES

OTHER_VERSIONS = {"workloadRef"}  # in v1.35 and v1.36, schedulingGroup since


@pytest.fixture(scope="module")
def schemas(home: Cluster) -> dict[str, dict[str, object]]:
    document = json.loads(home.plane.kubectl("get", "--raw", "/openapi/v3/api/v1").stdout)
    return {name.rpartition(".")[2]: schema["properties"] for name, schema in document["components"]["schemas"].items()
            if name.startswith("io.k8s.api.core.v1.") and "properties" in schema}  # fmt: skip


@pytest.mark.parametrize(("kind", "table"), [("PodSpec", SPEC), ("PodStatus", STATUS)])
def test_each_field_of_the_live_api_is_decided_on(
    schemas: dict[str, dict[str, object]], kind: str, table: dict[str, object]
) -> None:
    assert set(schemas[kind]) <= set(table)
    assert set(table) - set(schemas[kind]) <= OTHER_VERSIONS


def test_volume_sources_in_the_table_exist_in_the_live_api(schemas: dict[str, dict[str, object]]) -> None:
    sources = set(schemas["Volume"]) | {f"projected.{source}" for source in schemas["VolumeProjection"]}
    assert set(VOLUMES) <= sources


def test_the_sources_that_name_home_objects_are_decided_on(schemas: dict[str, dict[str, object]]) -> None:
    for source in ("configMap", "secret", "persistentVolumeClaim", "ephemeral", "projected", "downwardAPI"):
        assert source in VOLUMES
    assert {f"projected.{source}" for source in schemas["VolumeProjection"]} == {
        name for name in VOLUMES if name.startswith("projected.")
    }


def test_a_debug_container_travels_too(space: Space) -> None:
    space.create(bound("web", "edge-a"))
    space.wait_ready("web")
    debugger = {"name": "debugger", "image": "simulated:1", "targetContainerName": "main"}
    added = {"spec": {"ephemeralContainers": [debugger]}}
    space.home.patch("Pod", space.name, "web", added, "ephemeralcontainers", STRATEGIC)

    def names() -> list[str]:
        return [container["name"] for container in space.mirrors()["web"]["spec"].get("ephemeralContainers", ())]

    eventually("it is at the peer", lambda: names() == ["debugger"])


def test_a_resize_travels_too(space: Space) -> None:
    before, after = {"requests": {"cpu": "100m"}}, {"requests": {"cpu": "150m"}}
    space.create(bound("web", "edge-a", containers=[{"name": "main", "image": "simulated:1", "resources": before}]))
    space.wait_ready("web")
    # An apiserver lets only those be resized whose kubelet tells what they have; a simulated one does not, and the
    # lab's real one, which has no cgroups of its own, does not survive a resize.
    status = {"containerStatuses": [{"name": "main", "resources": before}]}
    space.peer.patch_status("Pod", space.remote, "web", status)
    eventually("home knows it", lambda: "resources" in (space.pod("web") or {})["status"]["containerStatuses"][0])
    resized = {"spec": {"containers": [{"name": "main", "resources": after}]}}
    space.home.patch("Pod", space.name, "web", resized, "resize", STRATEGIC)
    eventually("it is at the peer", lambda: space.mirrors()["web"]["spec"]["containers"][0]["resources"] == after)
