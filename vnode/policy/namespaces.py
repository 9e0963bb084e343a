"""Which home namespaces a peer takes, and what each is called there.

Not for the namespace objects themselves: `pods.controller` creates those and refuses foreign ones. Pure.
`config` uses the schema and the overlap rules below to refuse bad settings, `app` builds one `NamespaceMap` a peer,
and `pods` and `reflect` ask it.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from vnode.kube.syntax import DNS_LABEL

LIMIT: Final = 63  # a namespace's name is a DNS label
_HASH_MIN: Final = 16  # hex digits, 64 bits
_SHORTENED: Final = re.compile(rf".*-[0-9a-f]{{{_HASH_MIN},}}")  # and exactly LIMIT characters long
_NAMESPACE: Final = "{namespace}"
_CLUSTER: Final = "{cluster}"


class Requirement(Struct, frozen=True, forbid_unknown_fields=True):
    """One of `matchExpressions`, as in `metav1.LabelSelectorRequirement`."""

    key: Annotated[str, Meta(description="label key")]
    operator: Annotated[
        Literal["In", "NotIn", "Exists", "DoesNotExist"], Meta(description="how the label is compared with `values`")
    ]
    values: Annotated[list[str], Meta(description="for In and NotIn at least one, for the others none")] = []


class LabelSelector(Struct, frozen=True, forbid_unknown_fields=True):
    """`metav1.LabelSelector`: all parts must hold; an empty one matches everything."""

    matchLabels: Annotated[dict[str, str], Meta(description="labels with exactly these values")] = {}  # noqa: N815
    matchExpressions: Annotated[list[Requirement], Meta(description="conditions on labels")] = []  # noqa: N815


def matches(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    """Whether `labels` satisfy `selector`, by the apiserver's rules: NotIn holds for an absent label too."""
    return all(labels.get(key) == value for key, value in selector.matchLabels.items()) and all(
        _holds(requirement, labels.get(requirement.key)) for requirement in selector.matchExpressions
    )


def _holds(requirement: Requirement, value: str | None) -> bool:
    match requirement.operator:
        case "In":
            return value in requirement.values
        case "NotIn":
            return value not in requirement.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None


def valid_template(template: str) -> bool:
    """Whether `template` has `{namespace}` once, no other field but `{cluster}`, and can give a DNS-1123 label."""
    sample = template.replace(_NAMESPACE, "n").replace(_CLUSTER, "c")
    return template.count(_NAMESPACE) == 1 and DNS_LABEL.fullmatch(sample) is not None


@dataclass(frozen=True, slots=True)
class NamespaceMap:
    """One peer's rules: names, and which home namespaces may offload. `template` must be a `valid_template`.

    No two home namespaces get one remote name, and a name never depends on what other namespaces exist:
    - an explicit pair wins; distinct targets are the caller's duty (`config.validate`);
    - the template contains `{namespace}` once, so different namespaces give different full names;
    - a full name that is too long, or is some pair's target, is shortened: its head, `-`, and as many digits of the
      full name's SHA-256 (16 at least) as make exactly 63 characters;
    - a full name that itself has this form is shortened too, so no full name equals a shortened one.
    What remains is two names with one 64-bit hash and one head.
    """

    template: str
    cluster: str
    pairs: Mapping[str, str] = field(default_factory=dict)
    selector: LabelSelector | None = None
    mapped_only: bool = False

    def remote(self, namespace: str) -> str:
        """The name at the peer of home namespace `namespace`: always a DNS-1123 label."""
        if namespace in self.pairs:
            return self.pairs[namespace]
        prefix, suffix = self.affixes
        name = digest = prefix + namespace + suffix
        targets = self.pairs.values()
        if len(name) <= LIMIT and name not in targets and not (len(name) == LIMIT and _SHORTENED.fullmatch(name)):
            return name
        head = name[: LIMIT - 1 - _HASH_MIN].rstrip("-")
        while name in targets or name == digest:  # once, unless a target was chosen to equal the shortened name
            digest = hashlib.sha256(digest.encode()).hexdigest()
            name = f"{head}-{digest[: LIMIT - 1 - len(head)]}"
        return name

    def offloads(self, namespace: str, labels: Mapping[str, str]) -> bool:
        """Whether Pods of `namespace`, which carries `labels`, may run at this peer.

        `kube-*` stays home unless an explicit pair names it, and so does all the rest where only pairs count; the
        selector, where there is one, binds every namespace.
        """
        if (self.mapped_only or namespace.startswith("kube-")) and namespace not in self.pairs:
            return False
        return self.selector is None or matches(self.selector, labels)

    @property
    def places(self) -> tuple[str, ...]:
        """The remote namespaces there can be; "" stands for any."""
        return tuple(sorted(self.pairs.values())) if self.mapped_only else ("",)

    @property
    def affixes(self) -> tuple[str, str]:
        """What the template puts before and after the namespace."""
        prefix, _, suffix = self.template.replace(_CLUSTER, self.cluster).partition(_NAMESPACE)
        return prefix, suffix

    def claimant(self, target: str) -> str | None:
        """The home namespace without a pair for which the template gives `target`; None if there can be none."""
        prefix, suffix = self.affixes
        namespace = target[len(prefix) : len(target) - len(suffix)]
        if self.mapped_only or prefix + namespace + suffix != target or not DNS_LABEL.fullmatch(namespace):
            return None
        return None if namespace in self.pairs or namespace.startswith("kube-") else namespace


def shared(one: NamespaceMap, other: NamespaceMap) -> str | None:
    """A remote name, or pattern of names, that both could give, were they maps into one cluster; None: never.

    Selectors do not count: labels change, and what one peer left behind in a namespace the other would then find.
    """
    for here, there in ((one, other), (other, one)):
        for target in here.pairs.values():
            if target in there.pairs.values() or there.claimant(target) is not None:
                return target
    if one.mapped_only or other.mapped_only:
        return None
    (prefix, suffix), (other_prefix, other_suffix) = one.affixes, other.affixes
    short, long = sorted((prefix, other_prefix), key=len)
    tail_short, tail_long = sorted((suffix, other_suffix), key=len)
    # The longer affix must be the shorter one and a piece of a namespace, which neither begins nor ends with "-".
    head_meets = long.startswith(short) and not long[len(short) :].startswith("-")
    tail_meets = tail_long.endswith(tail_short) and not tail_long[: len(tail_long) - len(tail_short)].endswith("-")
    return f"{long}*{tail_long}" if head_meets and tail_meets else None
