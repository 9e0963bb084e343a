"""Pod down: the manifest to hold at the peer for a home Pod. Pure.

By deny-list: what is meaningless over there goes, what would mean something else is translated, the rest travels,
unknown fields included. What cannot travel raises `Refused`; nothing is dropped in silence. `fields` has the table.
"""

from collections.abc import Iterator
from typing import Any, Final

from vnode import names
from vnode.kube.objects import Json, JsonDict, Object
from vnode.pods.fields import SPEC, VOLUMES
from vnode.policy.route import Reference, Refused, Route

SERVICE_ACCOUNT_PATH: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
CONTAINER_LISTS: Final = ("initContainers", "containers", "ephemeralContainers")
_HOME_ONLY: Final = frozenset(name for name, entry in SPEC.items() if entry.fate == "home-only")
_REFUSED: Final = {name: entry.note for name, entry in SPEC.items() if entry.fate == "refused"}
_REFUSED_VOLUMES: Final = {name: entry.note for name, entry in VOLUMES.items() if entry.fate == "refused"}
# Labels that a peer's real nodes carry with the same meaning: requirements on them hold there too.
_TRUE_AT_PEER: Final = frozenset(
    {"kubernetes.io/os", "kubernetes.io/arch", "beta.kubernetes.io/os", "beta.kubernetes.io/arch"}
)
_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
# Where a home fact can be read in the mirror, by those who ask for it through the downward API.
_FIELD_PATHS: Final = {
    "metadata.namespace": f"metadata.annotations['{names.ORIGIN_NAMESPACE}']",
    "metadata.uid": f"metadata.annotations['{names.ORIGIN_UID}']",
    "spec.serviceAccountName": f"metadata.annotations['{names.ORIGIN_SERVICE_ACCOUNT}']",
    "spec.nodeName": f"metadata.labels['{names.ORIGIN_NODE}']",
}


def remote_pod(local: Object, route: Route) -> JsonDict:
    """The manifest to hold at the peer for `local`, less `names.APPLIED` (`changes` adds that).

    `local` is not touched. Raises `Refused` naming the first field that cannot travel.
    """
    spec = local.spec()
    for name, why in _REFUSED.items():
        if spec.get(name):
            raise Refused(names.UNSUPPORTED_FIELD, f"spec.{name}: {why}")
    account = spec.get("serviceAccountName", "default")
    spec = {name: value for name, value in spec.items() if name not in _HOME_ONLY}
    injected = _injected_volumes(spec)
    _volumes(spec, injected)
    for container in containers(spec):
        _container(container, injected)
    spec["serviceAccountName"] = "default"
    spec["automountServiceAccountToken"] = False
    _placement(spec, route)
    annotations = {key: value for key, value in local.meta.annotations.items() if key != _LAST_APPLIED}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "namespace": route.remote_namespace(local.meta.namespace),
            "name": local.meta.name,
            "labels": {**local.meta.labels, **route.labels},
            "annotations": {
                **annotations,
                names.ORIGIN_NAMESPACE: local.meta.namespace,
                names.ORIGIN_UID: local.meta.uid,
                names.ORIGIN_SERVICE_ACCOUNT: account,
            },
        },
        "spec": _drop_empty(spec),
    }


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


def _volumes(spec: JsonDict, injected: set[str]) -> None:
    kept = []
    for index, volume in enumerate(spec.get("volumes") or ()):
        if volume["name"] in injected:
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


def _placement(spec: JsonDict, route: Route) -> None:
    """Leave to the peer's scheduler what is its own affair, and keep the Pod off the peer's virtual nodes."""
    selector = {key: value for key, value in (spec.get("nodeSelector") or {}).items() if key in _TRUE_AT_PEER}
    spec["nodeSelector"] = {**selector, **route.node_selector}
    spec["tolerations"] = [
        toleration for toleration in spec.get("tolerations") or () if toleration.get("key") != names.PEER
    ]
    spec["topologySpreadConstraints"] = [
        {**_unmerged(constraint), "whenUnsatisfiable": "ScheduleAnyway"}
        for constraint in spec.get("topologySpreadConstraints") or ()
        if not _ours(constraint.get("topologyKey"))
    ]
    for constraint in spec["topologySpreadConstraints"]:
        constraint.pop("minDomains", None)  # allowed with DoNotSchedule only
    affinity = spec.get("affinity") or {}
    affinity["nodeAffinity"] = _node_affinity(affinity.get("nodeAffinity") or {})
    for kind in ("podAffinity", "podAntiAffinity"):
        if kind in affinity:
            affinity[kind] = _pod_affinity(affinity[kind], kind, route)
    spec["affinity"] = {kind: value for kind, value in affinity.items() if value}


def _ours(label: str | None) -> bool:
    return label is not None and label.startswith(f"{names.DOMAIN}/")


_OFF_VIRTUAL_NODES: Final = (
    {"key": "type", "operator": "NotIn", "values": ["virtual-kubelet"]},
    {"key": names.PEER, "operator": "DoesNotExist"},
)


def _node_affinity(affinity: JsonDict) -> JsonDict:
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    terms = [_true_at_peer(term) for term in required.get("nodeSelectorTerms") or ()]
    if not all(terms):
        terms = []  # terms are alternatives: one that asks for nothing more lets every node do
    preferred = [
        {**choice, "preference": preference}
        for choice in affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
        if (preference := _true_at_peer(choice.get("preference") or {}))
    ]
    result: JsonDict = {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [
                {"matchExpressions": [*term.get("matchExpressions", ()), *_OFF_VIRTUAL_NODES]} for term in terms or [{}]
            ]
        }
    }
    if preferred:
        result["preferredDuringSchedulingIgnoredDuringExecution"] = preferred
    return result


def _true_at_peer(term: Json) -> JsonDict:
    kept = [rule for rule in term.get("matchExpressions") or () if rule.get("key") in _TRUE_AT_PEER]
    return {"matchExpressions": kept} if kept else {}


def _pod_affinity(affinity: JsonDict, kind: str, route: Route) -> JsonDict:
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    preferred = "preferredDuringSchedulingIgnoredDuringExecution"
    must = [_term(term, route) for term in affinity.get(required) or () if not _ours(term.get("topologyKey"))]
    wish = [
        {**choice, "podAffinityTerm": _term(choice["podAffinityTerm"], route)}
        for choice in affinity.get(preferred) or ()
        if not _ours(choice["podAffinityTerm"].get("topologyKey"))
    ]
    if kind == "podAffinity":
        # The Pod to be near may run outside this peer, within the same zone or region at home.
        wish += [{"weight": 100, "podAffinityTerm": term} for term in must]
        must = []
    return _drop_empty({required: must, preferred: wish})


def _unmerged(term: Json) -> JsonDict:
    """`term` without the label keys home's apiserver has merged into its selector: the peer's refuses them twice."""
    rules = (term.get("labelSelector") or {}).get("matchExpressions") or ()
    merged = {rule.get("key") for rule in rules}
    result = dict(term)
    for name in ("matchLabelKeys", "mismatchLabelKeys"):
        if name in term and not (kept := [key for key in term[name] if key not in merged]):
            del result[name]
        elif name in term:
            result[name] = kept
    return result


def _term(term: Json, route: Route) -> JsonDict:
    term = _unmerged(term)
    if not term.get("namespaces"):
        return term
    return {**term, "namespaces": [route.remote_namespace(name) for name in term["namespaces"]]}


def _drop_empty(mapping: Json) -> JsonDict:
    return {name: value for name, value in mapping.items() if value not in ([], {}, None)}
