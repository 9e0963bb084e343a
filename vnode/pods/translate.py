"""Pod down: the manifest to hold at the peer for a home Pod. Pure.

By deny-list: what is meaningless over there goes, what would mean something else is translated, the rest travels,
unknown fields included. What cannot travel raises `Refused`; nothing is dropped in silence. `fields` has the table.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from vnode import names
from vnode.kube.objects import Json, JsonDict, Object, without_empty
from vnode.pods.fields import SPEC, VOLUMES
from vnode.pods.placement import held_to, translate_placement
from vnode.policy.overrides import applying
from vnode.policy.rewrite import overridden
from vnode.policy.route import Reference, Refused, Route

SERVICE_ACCOUNT_PATH: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
CONTAINER_LISTS: Final = ("initContainers", "containers", "ephemeralContainers")
_HOME_ONLY: Final = frozenset(name for name, entry in SPEC.items() if entry.fate == "home-only")
_REFUSED: Final = {name: entry.note for name, entry in SPEC.items() if entry.fate == "refused"}
_REFUSED_VOLUMES: Final = {name: entry.note for name, entry in VOLUMES.items() if entry.fate == "refused"}
LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
# Where a home fact can be read in the mirror, by those who ask for it through the downward API.
_FIELD_PATHS: Final = {
    "metadata.namespace": f"metadata.annotations['{names.ORIGIN_NAMESPACE}']",
    "metadata.uid": f"metadata.annotations['{names.ORIGIN_UID}']",
    "spec.serviceAccountName": f"metadata.annotations['{names.ORIGIN_SERVICE_ACCOUNT}']",
    "spec.nodeName": f"metadata.labels['{names.ORIGIN_NODE}']",
}


def remote_pod(local: Object, route: Route) -> JsonDict:
    """The manifest to hold at the peer for `local`, less `names.APPLIED` (`changes` adds that).

    `local` is not touched. Raises `Refused` naming the first field that cannot travel, or the override that does not
    fit. Whatever overrides say, the result is `local`'s: its name, its namespace there, its marks.
    """
    spec = local.spec()
    account = spec.get("serviceAccountName", "default")
    overrides = list(applying(route.overrides, local.meta.namespace, local.meta.labels))
    given = {volume["name"]: volume for _, override in overrides for volume in override.volumes}
    annotations = {key: value for key, value in local.meta.annotations.items() if key != LAST_APPLIED}
    pod: JsonDict = {
        "metadata": {"labels": local.meta.labels, "annotations": annotations},
        "spec": _remote_spec(spec, route, given),
    }
    pod = overridden(pod, overrides)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "namespace": route.remote_namespace(local.meta.namespace),
            "name": local.meta.name,
            "labels": {**pod["metadata"]["labels"], **route.labels},
            "annotations": {
                **pod["metadata"]["annotations"],
                names.ORIGIN_NAMESPACE: local.meta.namespace,
                names.ORIGIN_UID: local.meta.uid,
                names.ORIGIN_SERVICE_ACCOUNT: account,
            },
        },
        "spec": without_empty(held_to(pod["spec"], route)),
    }


def _remote_spec(spec: JsonDict, route: Route, given: Mapping[str, Json]) -> JsonDict:
    """What home's `spec`, written to here, asks for in the peer's terms; `given` are volumes in place of its own."""
    for name, why in _REFUSED.items():
        if spec.get(name):
            raise Refused(names.UNSUPPORTED_FIELD, f"spec.{name}: {why}")
    spec = {name: value for name, value in spec.items() if name not in _HOME_ONLY}
    injected = _injected_volumes(spec)
    _volumes(spec, injected, given)
    for container in containers(spec):
        _container(container, injected)
    spec["serviceAccountName"] = "default"
    spec["automountServiceAccountToken"] = False
    translate_placement(spec, route)
    return without_empty(spec)


def containers(spec: Json) -> Iterator[JsonDict]:
    """Every container of a Pod spec, of all three lists."""
    for name in CONTAINER_LISTS:
        yield from spec.get(name) or ()


def references(spec: Json) -> set[Reference]:
    """The ConfigMaps and Secrets a (translated) Pod spec names; one named both ways counts as required."""
    found: dict[tuple[str, str], bool] = {}

    def add(kind: str, name: str | None, optional: Any) -> None:
        if name:
            found[kind, name] = bool(optional) and found.get((kind, name), True)

    for volume in spec.get("volumes") or ():
        if config_map := volume.get("configMap"):
            add("ConfigMap", config_map.get("name"), config_map.get("optional"))
        if secret := volume.get("secret"):
            add("Secret", secret.get("secretName"), secret.get("optional"))
        for source in (volume.get("projected") or {}).get("sources") or ():
            if config_map := source.get("configMap"):
                add("ConfigMap", config_map.get("name"), config_map.get("optional"))
            if secret := source.get("secret"):
                add("Secret", secret.get("name"), secret.get("optional"))
        for driver in volume.values():
            for field_name in ("secretRef", "nodePublishSecretRef"):
                if isinstance(driver, dict) and (secret := driver.get(field_name)):
                    add("Secret", secret.get("name"), False)
    for container in containers(spec):
        for origin in container.get("envFrom") or ():
            for name, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
                if reference := origin.get(name):
                    add(kind, reference.get("name"), reference.get("optional"))
        for variable in container.get("env") or ():
            origin = variable.get("valueFrom") or {}
            for name, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
                if reference := origin.get(name):
                    add(kind, reference.get("name"), reference.get("optional"))
    for reference in spec.get("imagePullSecrets") or ():
        add("Secret", reference.get("name"), True)  # the kubelet, too, tries to pull without a missing one
    return {Reference(kind, name, optional) for (kind, name), optional in found.items()}


def _injected_volumes(spec: Json) -> set[str]:
    """The token volumes that home's ServiceAccount admission added (a user's own are not mounted at that path)."""
    mounted = {
        mount["name"]
        for container in containers(spec)
        for mount in container.get("volumeMounts") or ()
        if mount.get("mountPath") == SERVICE_ACCOUNT_PATH
    }
    return {
        volume["name"]
        for volume in spec.get("volumes") or ()
        if volume["name"].startswith("kube-api-access-") and volume["name"] in mounted and "projected" in volume
    }


def _volumes(spec: JsonDict, injected: set[str], given: Mapping[str, Json]) -> None:
    kept: list[Json] = []
    for index, volume in enumerate(spec.get("volumes") or ()):
        if volume["name"] in injected:
            continue
        if volume["name"] in given:
            kept.append(given[volume["name"]])
            continue
        for source, why in _REFUSED_VOLUMES.items():
            if source in volume:
                raise Refused(names.UNSUPPORTED_FIELD, f"spec.volumes[{index}].{source}: {why}")
        _downward(volume.get("downwardAPI"))
        for part in (volume.get("projected") or {}).get("sources") or ():
            for source in part:
                if why := _REFUSED_VOLUMES.get(f"projected.{source}", ""):
                    raise Refused(names.UNSUPPORTED_FIELD, f"spec.volumes[{index}].projected.{source}: {why}")
            _downward(part.get("downwardAPI"))
        kept.append(volume)
    spec["volumes"] = kept


def _downward(source: JsonDict | None) -> None:
    for item in (source or {}).get("items") or ():
        _field_path(item.get("fieldRef"))


def _field_path(reference: JsonDict | None) -> None:
    if reference and reference.get("fieldPath") in _FIELD_PATHS:
        reference["fieldPath"] = _FIELD_PATHS[reference["fieldPath"]]


def _container(container: JsonDict, injected: set[str]) -> None:
    if mounts := container.get("volumeMounts"):
        container["volumeMounts"] = [mount for mount in mounts if mount["name"] not in injected]
    for variable in container.get("env") or ():
        _field_path((variable.get("valueFrom") or {}).get("fieldRef"))
