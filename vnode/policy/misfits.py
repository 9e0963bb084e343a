"""What is wrong with an override, told before any Pod has met it: a line for each problem, with its key. Pure.

What only a Pod can show (a JSON patch's path, say) is refused then, by `policy.rewrite`. Called by `rules`.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from jsonpatch import JsonPatch, JsonPatchException
from jsonpointer import JsonPointer, JsonPointerException

from vnode import names
from vnode.kube import syntax
from vnode.kube.objects import quantity
from vnode.kube.podspec import misfit
from vnode.kube.syntax import label_problems, refused
from vnode.policy.namespaces import LabelSelector
from vnode.policy.overrides import ContainerRule, ImageRule, Override, ResourceRule

_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_AFFINITY: Final = ("nodeAffinity", "podAffinity", "podAntiAffinity")
_NEEDED: Final = {"add": "value", "replace": "value", "test": "value", "move": "from", "copy": "from"}


def override_problems(key: str, override: Override, node_selector: Mapping[str, str]) -> Iterator[str]:
    """All that is wrong with `override`; `node_selector` tells the nodes the virtual node stands for."""
    if override == Override(override.selector, override.namespaces):
        yield f"{key}: expected something to change, such as images, containers or patch"
    if override.selector:
        yield from selector_problems(f"{key}.selector", override.selector)
    for namespace in override.namespaces:
        yield from refused(f"{key}.namespaces", syntax.dns_label, namespace)
    for index, image in enumerate(override.images):
        yield from _image_problems(f"{key}.images[{index}]", image)
    for index, container in enumerate(override.containers):
        yield from _container_problems(f"{key}.containers[{index}]", container)
    yield from label_problems(f"{key}.nodeSelector", override.nodeSelector)
    for name, value in override.nodeSelector.items():
        if node_selector.get(name, value) != value:
            yield f"{key}.nodeSelector[{name}]: expected {node_selector[name]!r} as capacity.nodeSelector has it"
    for name in override.affinity:
        if name not in _AFFINITY:
            yield f"{key}.affinity.{name}: expected one of {', '.join(_AFFINITY)}"
    yield from _spec_problems(key, override)
    for field in ("runtimeClasses", "priorityClasses"):
        for name, target in getattr(override, field).items():
            if target:
                yield from refused(f"{key}.{field}[{name}]", syntax.dns_subdomain, target)
    for name in override.imagePullSecrets:
        yield from refused(f"{key}.imagePullSecrets", syntax.dns_subdomain, name)
    yield from label_problems(f"{key}.labels", override.labels)
    for name in override.annotations:
        yield from refused(f"{key}.annotations[{name}]", syntax.qualified_name, name)
    for field in ("labels", "annotations"):
        for name in getattr(override, field):
            if _ours(name):
                yield f"{key}.{field}[{name}]: expected a key that is not vnode's own"
    for index, operation in enumerate(override.patch):
        yield from _operation_problems(f"{key}.patch[{index}]", operation)


def selector_problems(key: str, selector: LabelSelector) -> Iterator[str]:
    """What an apiserver would not accept as a label selector."""
    yield from label_problems(f"{key}.matchLabels", selector.matchLabels)
    for index, requirement in enumerate(selector.matchExpressions):
        place = f"{key}.matchExpressions[{index}]"
        yield from refused(f"{place}.key", syntax.qualified_name, requirement.key)
        if requirement.operator in ("In", "NotIn") and not requirement.values:
            yield f"{place}.values: expected at least one value for {requirement.operator}"
        if requirement.operator in ("Exists", "DoesNotExist") and requirement.values:
            yield f"{place}.values: expected none for {requirement.operator}"
        for value in requirement.values:
            yield from refused(f"{place}.values", syntax.label_value, value)


def _image_problems(key: str, rule: ImageRule) -> Iterator[str]:
    if bool(rule.prefix) == bool(rule.exact):
        yield f"{key}: expected one of prefix and exact"
    if not rule.to and not rule.tag:
        yield f"{key}: expected to, tag, or both"
    if rule.prefix and rule.to and rule.prefix.endswith("/") != rule.to.endswith("/"):
        yield f"{key}.to: expected / at its end like prefix, or at neither's, got {rule.to!r}"
    if rule.tag and not _TAG.fullmatch(rule.tag):
        yield f"{key}.tag: expected letters, digits, _, - and ., at most 128, got {rule.tag!r}"
    for field in ("prefix", "exact", "to"):
        if re.search(r"\s", getattr(rule, field)):
            yield f"{key}.{field}: expected no blanks, got {getattr(rule, field)!r}"


def _container_problems(key: str, rule: ContainerRule) -> Iterator[str]:
    if rule == ContainerRule(rule.name):
        yield f"{key}: expected something to change, such as env or resources"
    if rule.name:
        yield from refused(f"{key}.name", syntax.dns_label, rule.name)
    for name in (*rule.env, *rule.unsetEnv):
        if not name or "=" in name:
            yield f"{key}.env: expected a variable's name, got {name!r}"
    for name in rule.unsetEnv:
        if name in rule.env:
            yield f"{key}.unsetEnv: expected no variable that env sets, got {name!r}"
    yield from _resource_problems(f"{key}.resources", rule.resources)


def _resource_problems(key: str, rule: ResourceRule) -> Iterator[str]:
    sound = True
    for field in ("scale", "requests", "limits", "cap"):
        for name, amount in getattr(rule, field).items():
            yield from refused(f"{key}.{field}[{name}]", syntax.qualified_name, name)
            try:
                if quantity(amount) >= 0 and (field != "scale" or quantity(amount) > 0):
                    continue
            except ValueError:
                pass  # one message for all that is no such number
            sound = False
            expected = "a number above 0" if field == "scale" else "a quantity of at least 0"
            yield f"{key}.{field}[{name}]: expected {expected}, got {amount!r}"
    for name in rule.scale:
        if name.startswith("hugepages-"):
            yield f"{key}.scale[{name}]: expected no huge pages, they come in whole pages; say requests and limits"
    for name in sorted(rule.requests.keys() & rule.limits.keys()) if sound else ():
        if quantity(rule.requests[name]) > quantity(rule.limits[name]):
            yield f"{key}.requests[{name}]: expected at most the limit, {rule.limits[name]}"


def _spec_problems(key: str, override: Override) -> Iterator[str]:
    """What Kubernetes' own fields must be for us to read them; all else about them the peer's apiserver says."""
    given = {
        "tolerations": override.tolerations,
        "affinity": {name: value for name, value in override.affinity.items() if name in _AFFINITY},
        "topologySpreadConstraints": override.topologySpreadConstraints,
        "volumes": override.volumes,
    }
    problem = misfit({"spec": {"containers": [{"name": "any", "image": "any"}], **given}})
    if problem:
        yield f"{key}.{problem.removeprefix('spec.')}"
        return
    for name in _repeated(volume["name"] for volume in override.volumes):
        yield f"{key}.volumes: expected one volume named {name}"


def _operation_problems(key: str, operation: Mapping[str, Any]) -> Iterator[str]:
    try:
        JsonPatch([operation])
        paths = [JsonPointer(operation[name]) for name in ("path", "from") if name in operation]
    except (JsonPatchException, JsonPointerException, TypeError) as error:
        yield f"{key}: expected an operation of RFC 6902: {error}"
        return
    needed = _NEEDED.get(operation["op"], "path")
    if needed not in operation:
        yield f"{key}.{needed}: missing, {operation['op']} needs it"
    for name in operation.keys() - {"op", "path", "from", "value"}:
        yield f"{key}.{name}: unknown key; known: op, path, from, value"
    for pointer in paths:
        match pointer.parts:
            case ["spec", _, *_]:
                pass
            case ["metadata", "labels" | "annotations", name, *_] if not _ours(name):
                pass
            case _:
                yield (
                    f"{key}: expected a place below /spec, or a label or annotation that is not vnode's own, "
                    f"got {pointer.path!r}"
                )


def _ours(name: str) -> bool:
    return name.startswith(f"{names.DOMAIN}/")


def _repeated(items: Iterable[str]) -> list[str]:
    return [item for item, count in Counter(items).items() if count > 1]
