"""What a user may change on a running Pod, and how it reaches the mirror. Pure.

The mirror carries an annotation that says what was last sent, as digests of its parts. Only a change at home sends
anything again: what the peer's own webhooks or people make of the mirror is theirs, and no tug-of-war begins.
"""

import hashlib
from typing import Any, Final, NamedTuple

import msgspec

from vnode import names
from vnode.kube.objects import Json, JsonDict, Object
from vnode.pods.translate import CONTAINER_LISTS

MUTABLE_SPEC: Final = ("activeDeadlineSeconds", "tolerations")


class Patch(NamedTuple):
    """A strategic merge patch of the mirror, or of one of its subresources; carries the uid as precondition."""

    subresource: str
    body: JsonDict


class _Applied(msgspec.Struct):
    """The annotation's content: a digest for each part, and the keys of ours that must go when home drops them."""

    meta: str = ""
    images: str = ""
    spec: str = ""
    resize: str = ""
    ephemeral: str = ""
    labels: list[str] = []
    annotations: list[str] = []


def creatable(manifest: Json) -> JsonDict:
    """`manifest` as it can be created, stamped. Ephemeral containers follow by their subresource, as everywhere."""
    spec = {name: value for name, value in manifest["spec"].items() if name != "ephemeralContainers"}
    return _stamped({**manifest, "spec": spec})


def patches(manifest: Json, remote: Object) -> list[Patch]:
    """What brings `remote`, made from an earlier state of the home Pod, to `manifest`; empty when it has it all.

    To be sent in this order, up to the first that is refused: each part is stamped as applied on its own, so that a
    resize which the peer does not allow keeps nothing else from it, now or later.
    """
    reached, now = _applied_to(remote), _digest(manifest)
    spec, result = manifest["spec"], []
    if (reached.meta, reached.images, reached.spec) != (now.meta, now.images, now.spec):
        body: JsonDict = {}
        if (reached.images, reached.spec) != (now.images, now.spec):
            body["spec"] = _edits(spec, remote.spec(), images=reached.images != now.images)
        gone_labels = dict.fromkeys(set(reached.labels) - set(now.labels))
        gone = dict.fromkeys(set(reached.annotations) - set(now.annotations))
        reached = msgspec.structs.replace(now, resize=reached.resize, ephemeral=reached.ephemeral)
        body["metadata"] = {
            "uid": remote.uid,
            "labels": {**gone_labels, **manifest["metadata"]["labels"]},
            "annotations": {**gone, **manifest["metadata"]["annotations"], **_stamp(reached)},
        }
        result.append(Patch("", body))
    if reached.ephemeral != now.ephemeral:
        if spec.get("ephemeralContainers"):
            body = {"metadata": {"uid": remote.uid}, "spec": {"ephemeralContainers": spec["ephemeralContainers"]}}
            result.append(Patch("ephemeralcontainers", body))
        reached = msgspec.structs.replace(reached, ephemeral=now.ephemeral)
        result.append(Patch("", {"metadata": {"uid": remote.uid, "annotations": _stamp(reached)}}))
    if reached.resize != now.resize:
        body = {"metadata": {"uid": remote.uid}, "spec": _resources(spec, remote.spec())}
        result.append(Patch("resize", body))
        reached = msgspec.structs.replace(reached, resize=now.resize)
        result.append(Patch("", {"metadata": {"uid": remote.uid, "annotations": _stamp(reached)}}))
    return result


def in_step(manifest: Json, remote: Object) -> bool:
    """True when the mirror has everything home asks for: then it runs home's generation."""
    return not patches(manifest, remote)


def _edits(spec: Json, held: Json, *, images: bool) -> JsonDict:
    edits: JsonDict = {}
    # Images only when they changed here: the peer may run others in their place, from its own registry say. And only of
    # containers that run: a new override may ask for more, which a Pod cannot get any more.
    for name in CONTAINER_LISTS[:2] if images else ():
        there = {container["name"] for container in held.get(name) or ()}
        found = [{"name": c["name"], "image": c["image"]} for c in spec.get(name) or () if c["name"] in there]
        if found:
            edits[name] = found
    if spec.get("activeDeadlineSeconds") is not None:
        edits["activeDeadlineSeconds"] = spec["activeDeadlineSeconds"]
    # Tolerations can only be added, and the list is atomic: the peer's own additions must stay in it.
    present = held.get("tolerations") or []
    edits["tolerations"] = [*present, *(new for new in spec.get("tolerations") or () if new not in present)]
    return edits


def _resources(spec: Json, held: Json) -> JsonDict:
    there = {c["name"]: "resources" in c for name in CONTAINER_LISTS[:2] for c in held.get(name) or ()}

    def replaced(wanted: Json, present: bool) -> JsonDict:
        # The directive, where there is nothing to replace, would take the whole map away (`removeDirectives`).
        return {"$patch": "replace", **wanted} if present else dict(wanted)

    result: JsonDict = {
        name: [
            {"name": container["name"], "resources": replaced(container["resources"], there[container["name"]])}
            for container in spec[name]
            if container.get("resources") and container["name"] in there
        ]
        for name in CONTAINER_LISTS[:2]
        if spec.get(name)
    }
    if spec.get("resources"):
        result["resources"] = replaced(spec["resources"], "resources" in held)
    return {name: value for name, value in result.items() if value}


def _stamped(manifest: Json) -> JsonDict:
    metadata = manifest["metadata"]
    annotations = {**metadata["annotations"], **_stamp(_digest(manifest))}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


def _stamp(applied: _Applied) -> dict[str, str]:
    return {names.APPLIED: msgspec.json.encode(applied).decode()}


def _applied_to(remote: Object) -> _Applied:
    try:
        return msgspec.json.decode(remote.meta.annotations.get(names.APPLIED, "{}"), type=_Applied)
    except msgspec.MsgspecError:
        return _Applied()  # somebody at the peer wrote over it: send everything again


def _digest(manifest: Json) -> _Applied:
    metadata, spec = manifest["metadata"], manifest["spec"]
    listed = [container for name in CONTAINER_LISTS[:2] for container in spec.get(name) or ()]
    return _Applied(
        meta=_hash([metadata["labels"], metadata["annotations"]]),
        images=_hash([[c["name"], c["image"]] for c in listed]),
        spec=_hash([spec.get(name) for name in MUTABLE_SPEC]),
        resize=_hash([[[c["name"], c.get("resources")] for c in listed], spec.get("resources")]),
        ephemeral=_hash([container["name"] for container in spec.get("ephemeralContainers") or ()]),
        labels=sorted(metadata["labels"]),
        annotations=sorted(metadata["annotations"]),
    )


def _hash(value: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()[:12]
