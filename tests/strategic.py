"""What an apiserver makes of a strategic merge patch of a Pod: as much of it as vnode's patches use.

After apimachinery `pkg/util/strategicpatch` and the `patchMergeKey` tags of `core/v1` `types.go` (v1.37).
"""

from typing import Any

from vnode.kube.objects import Json, JsonDict, Object, from_dict

MERGE_KEYS = {
    "conditions": "type",
    "podIPs": "ip",
    "hostIPs": "ip",
    "containers": "name",
    "initContainers": "name",
    "ephemeralContainers": "name",
}


def merged(old: Any, patch: Any, field: str = "") -> Any:
    """`old` with `patch` applied; lists without a merge key are replaced whole."""
    if isinstance(patch, dict):
        return _mapping(old if isinstance(old, dict) else {}, patch)
    if isinstance(patch, list) and field in MERGE_KEYS:
        return _listed(old or [], patch, MERGE_KEYS[field])
    return patch


def _mapping(old: Json, patch: Json) -> JsonDict:
    new = {} if patch.get("$patch") == "replace" else dict(old)
    for name, value in patch.items():
        if name == "$patch":
            continue
        if value is None:
            new.pop(name, None)
        elif type(new.get(name)) is not type(value):
            # What is new is taken as it is, but a map that has a directive goes as a whole (`removeDirectives`).
            if not (isinstance(value, dict) and "$patch" in value):
                new[name] = merged(None, value, name)
        else:
            new[name] = merged(new.get(name), value, name)
    return new


def _listed(old: list[JsonDict], patch: list[JsonDict], key: str) -> list[JsonDict]:
    new = list(old)
    if any(entry == {"$patch": "replace"} for entry in patch):
        new = []
    for entry in patch:
        if entry == {"$patch": "replace"}:
            continue
        at = next((number for number, held in enumerate(new) if held[key] == entry[key]), None)
        if entry.get("$patch") == "delete":
            new = [held for held in new if held[key] != entry[key]]
        elif at is None:
            new.append(_mapping({}, entry))
        else:
            new[at] = _mapping(new[at], entry)
    return new


def raw(item: Object) -> JsonDict:
    """An `Object` as the JSON a server would hold."""
    meta = item.meta
    metadata = {
        "name": meta.name,
        "namespace": meta.namespace,
        "uid": meta.uid,
        "resourceVersion": meta.resource_version,
        "generation": meta.generation,
        "labels": meta.labels,
        "annotations": meta.annotations,
        "finalizers": meta.finalizers,
    }
    if meta.deletion_timestamp:
        metadata["deletionTimestamp"] = meta.deletion_timestamp
        metadata["deletionGracePeriodSeconds"] = meta.deletion_grace_period_seconds
    return {"metadata": metadata, "spec": item.spec(), "status": item.status()}


def patched(item: Object, patch: Json) -> Object:
    """`item` with `patch` applied, in its next version; the uid in the patch must be the item's."""
    assert patch["metadata"]["uid"] == item.uid, "409: the uid in the precondition is another"
    new = merged(raw(item), patch)
    new["metadata"]["resourceVersion"] = str(item.version + 1)
    return from_dict(new)
