"""What a peer's overrides make of the Pod that is to run there. Pure; called by `pods.translate` alone.

Works on the translation of home's Pod, afresh each time: a mirror is never rewritten a second time. What is given is
not touched, and the result shares nothing that is written to later. Who the Pod belongs to is not said here: that is
stamped after, so no override can undo it.
"""

import math
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Final

import msgspec
from jsonpatch import JsonPatch, JsonPatchException, JsonPatchTestFailed
from jsonpointer import JsonPointerException

from vnode import names
from vnode.kube.objects import Json, JsonDict, format_quantity, quantity, without_empty
from vnode.kube.podspec import misfit
from vnode.policy.images import rewritten
from vnode.policy.overrides import ContainerRule, Override, ResourceRule
from vnode.policy.route import Refused

_BYTES: Final = ("memory", "ephemeral-storage")


def overridden(pod: Json, overrides: Iterable[tuple[str, Override]]) -> JsonDict:
    """`pod` (its labels, annotations and spec) as `overrides`, each with its key, have it.

    Volumes are not replaced here: home's may be such as cannot travel, so that is done while translating.
    Raises `Refused` naming the key that does not fit.
    """
    result = dict(pod)
    for key, override in overrides:
        metadata = result["metadata"]
        result["metadata"] = {
            **metadata,
            "labels": {**metadata["labels"], **override.labels},
            "annotations": {**metadata["annotations"], **override.annotations},
        }
        result["spec"] = _spec(result["spec"], override, key)
        if override.patch:
            result = _patched(result, override.patch, f"{key}.patch")
    return result


def _spec(spec: Json, override: Override, key: str) -> JsonDict:
    result = dict(spec)
    for name in ("initContainers", "containers", "ephemeralContainers"):
        if not spec.get(name):
            continue
        containers = [{**each, "image": rewritten(each["image"], override.images)} for each in spec[name]]
        if name != "ephemeralContainers":
            containers = [_container(each, override.containers, key) for each in containers]
        result[name] = containers
    classes = {"runtimeClassName": override.runtimeClasses, "priorityClassName": override.priorityClasses}
    for name, there in classes.items():
        if here := spec.get(name):
            result[name] = there.get(here, there.get("*", here)) or None
    secrets = [{"name": name} for name in override.imagePullSecrets]
    added = {"tolerations": override.tolerations, "imagePullSecrets": secrets}
    for name, items in added.items():
        held = spec.get(name) or []
        result[name] = [*held, *(item for item in items if item not in held)]
    result["nodeSelector"] = {**(spec.get("nodeSelector") or {}), **override.nodeSelector}
    result["affinity"] = {**(spec.get("affinity") or {}), **override.affinity}
    if override.topologySpreadConstraints is not None:
        result["topologySpreadConstraints"] = override.topologySpreadConstraints
    return without_empty(result)


def _container(container: Json, rules: Iterable[ContainerRule], key: str) -> JsonDict:
    result = dict(container)
    for index, rule in enumerate(rules):
        if rule.name not in ("", container["name"]):
            continue
        if rule.env or rule.unsetEnv:
            result["env"] = _env(result.get("env") or (), rule)
        if rule.command is not None:
            result["command"] = rule.command
        if rule.args is not None:
            result["args"] = rule.args
        if rule.resources != ResourceRule():
            try:
                result["resources"] = _resources(result.get("resources") or {}, rule.resources)
            except ValueError as error:  # not from an apiserver: an earlier patch, or a manifest that is none
                message = f"{key}.containers[{index}]: container {container['name']}: {error}"
                raise Refused(names.OVERRIDE_FAILED, message) from error
    return result


def _env(variables: Iterable[Json], rule: ContainerRule) -> list[Json]:
    """In place, so that what refers to a variable still comes after it."""
    result: dict[str, Json] = {each["name"]: each for each in variables if each["name"] not in rule.unsetEnv}
    result.update({name: {"name": name, "value": value} for name, value in rule.env.items()})
    return list(result.values())


def _resources(resources: Json, rule: ResourceRule) -> JsonDict:
    result = dict(resources)
    for name, settings in (("requests", rule.requests), ("limits", rule.limits)):
        amounts = dict(resources.get(name) or {})
        amounts |= {each: _scaled(each, amounts[each], by) for each, by in rule.scale.items() if each in amounts}
        amounts |= settings
        for each, most in rule.cap.items():
            if each in amounts and quantity(amounts[each]) > quantity(most):
                amounts[each] = most
        if amounts:
            result[name] = amounts
    return result


def _scaled(resource: str, amount: Any, by: str) -> str:
    """Up to the next millicore or byte, or whole unit: those are the finest steps an apiserver takes."""
    value = quantity(amount) * quantity(by)
    if resource == "cpu":
        return format_quantity(Decimal(math.ceil(value * 1000)) / 1000)
    return format_quantity(Decimal(math.ceil(value)), binary=resource in _BYTES)


def _patched(pod: Json, patch: list[dict[str, Any]], key: str) -> JsonDict:
    # The library puts the patch's own values into the document, where the next operation may write to them.
    result, operations = _apart(pod), _apart(patch)
    for index, operation in enumerate(operations):
        try:
            result = JsonPatch([operation]).apply(result, in_place=True)
        except JsonPatchTestFailed:
            problem = "the test does not hold"
        except (JsonPatchException, JsonPointerException):  # their words can hold the whole Pod
            problem = "there is no such place in the Pod"
        else:
            continue
        raise Refused(names.OVERRIDE_FAILED, f"{key}[{index}]: {operation['op']} {operation['path']}: {problem}")
    if problem := misfit(result):
        raise Refused(names.OVERRIDE_FAILED, f"{key}: leaves no sound Pod: {problem}")
    return dict(result)


def _apart(value: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value))
