"""The Node seen and the Node wanted -> what to change, in as few patches as the API allows. Pure.

Two, because `spec` and `status` have an endpoint each. Only what is ours is compared: others' labels, annotations,
taints, conditions, resources and `spec.unschedulable` stay. What we put there earlier and want no more is told from
the rest by annotations which list it. Server-side apply would keep such a list for us, but taints are an atomic list to
it (`listType=atomic`): under it either the node lifecycle controller's taints or ours go.

`{}` stands for nothing to do. Called by `controller`.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from vnode import names
from vnode.kube.objects import Json, JsonDict, Object, quantity, timestamp
from vnode.node.manifest import Wanted, condition_json

REPORT_EVERY: Final = timedelta(minutes=5)  # the kubelet's nodeStatusReportFrequency


def metadata_changes(node: Object, wanted: Wanted) -> JsonDict:
    """A JSON merge patch of the Node's labels, annotations and taints, less its precondition (`onto`)."""
    patch: JsonDict = {}
    labels = _changes(wanted.labels, node.meta.labels, _listed(node, names.LABELS_KEY))
    annotations = _changes(_without(wanted.annotations, names.RESOURCES_KEY), node.meta.annotations, ())
    if labels or annotations:
        patch["metadata"] = {"labels": labels} | {"annotations": annotations}
    shown = node.spec().get("taints") or []
    taints = _merged_taints(shown, wanted.taints, _listed(node, names.TAINTS_KEY))
    if taints != shown:
        patch["spec"] = {"taints": taints}
    return patch


def status_changes(node: Object, wanted: Wanted) -> JsonDict:
    """What of the Node's status differs, and its list of our resources; `timed` makes the patch of it."""
    shown, patch = node.status(), JsonDict()
    for key in ("capacity", "allocatable"):
        if key in wanted.status:
            amounts = _resource_changes(wanted.status[key], shown.get(key) or {}, _listed(node, names.RESOURCES_KEY))
            if amounts:
                patch[key] = amounts
    addresses = wanted.status["addresses"]
    if addresses != shown.get("addresses"):
        patch["addresses"] = [{"$patch": "replace"}, *addresses]  # merged by type otherwise: kubernetes#79391
    for key in ("nodeInfo", "daemonEndpoints"):
        if not _within(wanted.status.get(key, {}), shown.get(key) or {}):
            patch[key] = wanted.status[key]
    for key in ("declaredFeatures", "images"):
        if key in wanted.status and wanted.status[key] != (shown.get(key) or []):
            patch[key] = wanted.status[key]
    held = {condition["type"]: condition for condition in shown.get("conditions") or ()}
    conditions = [condition_json(condition, "", "") for condition in wanted.conditions]
    changed = [each for each in conditions if not _within(_untimed(each), held.get(each["type"], {}))]
    if changed:
        patch["conditions"] = [_untimed(each) for each in changed]
    resources = wanted.annotations.get(names.RESOURCES_KEY)
    metadata = {"metadata": {"annotations": {names.RESOURCES_KEY: resources}}}
    # Patched through the status endpoint, so that the list and what it lists cannot part.
    return patch | metadata if resources not in (None, node.meta.annotations.get(names.RESOURCES_KEY)) else patch


def report_due(node: Object, now: datetime) -> bool:
    """Whether the status is to be written though nothing changed: each five minutes, as a kubelet does."""
    ready = [each for each in node.status().get("conditions") or () if each["type"] == "Ready"]
    return not ready or ready[0].get("lastHeartbeatTime", "") <= timestamp(now - REPORT_EVERY)


def timed(changes: Json, node: Object, wanted: Wanted, now: datetime) -> JsonDict:
    """The status patch to send: `changes`, and all our conditions with the moment's heartbeat."""
    held = {condition["type"]: condition for condition in node.status().get("conditions") or ()}
    moment, conditions = timestamp(now), []
    for condition in wanted.conditions:
        shown = held.get(condition.type, {})
        kept = shown.get("status") == str(condition.status) and shown.get("lastTransitionTime")
        conditions.append(condition_json(condition, moment, kept or moment))
    status = _without(changes, "metadata") | {"conditions": conditions}
    return {"metadata": changes.get("metadata", {}), "status": status}


def onto(node: Object, patch: Json) -> JsonDict:
    """`patch` with its precondition: this Node, not another of its name; with taints, just as we have seen it."""
    metadata = {**patch.get("metadata", {}), "uid": node.uid}
    if "taints" in patch.get("spec", {}):
        metadata["resourceVersion"] = node.meta.resource_version  # the list is replaced whole
    return {**patch, "metadata": metadata}


def _listed(node: Object, annotation: str) -> list[str]:
    return [item for item in node.meta.annotations.get(annotation, "").split(",") if item]


def _changes(wanted: Mapping[str, str], shown: Mapping[str, str], earlier: Iterable[str]) -> dict[str, str | None]:
    gone = {key: None for key in earlier if key not in wanted and key in shown}
    return {key: value for key, value in wanted.items() if shown.get(key) != value} | gone


def _resource_changes(
    wanted: Mapping[str, str], shown: Mapping[str, str], earlier: Iterable[str]
) -> dict[str, str | None]:
    # Compared as amounts: the apiserver may write a quantity in another way than we do.
    differ = {
        name: text for name, text in wanted.items() if name not in shown or quantity(text) != quantity(shown[name])
    }
    return differ | {name: None for name in earlier if name not in wanted and name in shown}


def _merged_taints(
    shown: list[dict[str, Any]], wanted: Iterable[Mapping[str, str]], earlier: Iterable[str]
) -> list[dict[str, Any]]:
    ours = {f"{taint['key']}:{taint['effect']}": taint for taint in wanted}
    merged, former = [], set(earlier) - ours.keys()
    for taint in shown:
        identity = f"{taint['key']}:{taint['effect']}"
        if identity in ours:
            right = ours.pop(identity)
            # One of ours with the right value stays as it is, with the `timeAdded` that the apiserver gave it.
            merged.append(taint if taint.get("value", "") == right.get("value", "") else dict(right))
        elif identity not in former:
            merged.append(taint)
    return [*merged, *(dict(taint) for taint in ours.values())]


def _within(wanted: Any, shown: Any) -> bool:
    """Whether all that `wanted` says, `shown` says too; an empty string is as good as absent."""
    if isinstance(wanted, Mapping):
        return isinstance(shown, Mapping) and all(_within(value, shown.get(key)) for key, value in wanted.items())
    return bool((wanted or None) == (shown or None))


def _untimed(condition: Json) -> JsonDict:
    return _without(condition, "lastHeartbeatTime", "lastTransitionTime")


def _without(mapping: Json, *keys: str) -> JsonDict:
    return {key: value for key, value in mapping.items() if key not in keys}
