"""What a peer's `overrides` may say, and which of them a Pod meets. Pure.

The Structs are the schema of the configuration: keys, defaults and meanings in the runbook's table come from them.
Fields that are Kubernetes' own (tolerations, affinity, volumes) are taken as they are written. `policy.rewrite` applies
them, `policy.misfits` tells what is wrong with one before any Pod has met it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from msgspec import Meta, Struct

from vnode.policy.namespaces import LabelSelector, matches
from vnode.schema import Quantity


class ImageRule(Struct, frozen=True, forbid_unknown_fields=True):
    """Gives images another name; of the rules of one override the first that fits an image is the one."""

    prefix: Annotated[
        str, Meta(description="images whose name, as written or in full, begins so: to a `/`, `:` or `@`, or the end")
    ] = ""
    exact: Annotated[str, Meta(description="instead of `prefix`: this one image")] = ""
    to: Annotated[str, Meta(description="stands in place of the prefix, or of the whole name; empty: as it was")] = ""
    tag: Annotated[str, Meta(description="the tag instead of tag and digest; empty: as they were")] = ""


class ResourceRule(Struct, frozen=True, forbid_unknown_fields=True):
    """Scales, then sets, then caps."""

    scale: Annotated[dict[str, Quantity], Meta(description="requests and limits times this")] = {}
    requests: Annotated[dict[str, Quantity], Meta(description="requests to set")] = {}
    limits: Annotated[dict[str, Quantity], Meta(description="limits to set")] = {}
    cap: Annotated[dict[str, Quantity], Meta(description="requests and limits above this come down to it")] = {}


class ContainerRule(Struct, frozen=True, forbid_unknown_fields=True):
    """What one container, or each, gets."""

    name: Annotated[str, Meta(description="the container (or init container), where a Pod has it; empty: each")] = ""
    env: Annotated[dict[str, str], Meta(description="variables to set")] = {}
    unsetEnv: Annotated[list[str], Meta(description="variables to take out")] = []  # noqa: N815
    command: Annotated[list[str] | None, Meta(description="in place of the container's; `[]`: the image's own")] = None
    args: Annotated[list[str] | None, Meta(description="likewise")] = None
    resources: ResourceRule = ResourceRule()


class Override(Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of a peer's `overrides`: for which Pods, and what they get there otherwise than at home."""

    selector: Annotated[LabelSelector | None, Meta(description="Pods with these labels at home; none: all")] = None
    namespaces: Annotated[list[str], Meta(description="Pods of these home namespaces; none: of all")] = []
    images: Annotated[list[ImageRule], Meta(description="other images; the first rule that fits")] = []
    containers: Annotated[list[ContainerRule], Meta(description="other settings of containers")] = []
    nodeSelector: Annotated[dict[str, str], Meta(description="labels of the peer's nodes, added")] = {}  # noqa: N815
    tolerations: Annotated[list[dict[str, Any]], Meta(description="of taints of the peer's nodes, added")] = []
    affinity: Annotated[
        dict[str, Any], Meta(description="`nodeAffinity`, `podAffinity`, `podAntiAffinity`: each in place of home's")
    ] = {}
    topologySpreadConstraints: Annotated[  # noqa: N815
        list[dict[str, Any]] | None, Meta(description="in place of home's")
    ] = None
    runtimeClasses: Annotated[  # noqa: N815
        dict[str, str], Meta(description="class at home to class at the peer; `*`: any other; to empty: none")
    ] = {}
    priorityClasses: Annotated[dict[str, str], Meta(description="likewise")] = {}  # noqa: N815
    imagePullSecrets: Annotated[  # noqa: N815
        list[str],
        Meta(description="names, added; copied from the Pod's namespace at home if there, else the peer's own"),
    ] = []
    labels: Annotated[dict[str, str], Meta(description="labels of the Pod, added or changed")] = {}
    annotations: Annotated[dict[str, str], Meta(description="annotations of the Pod, added or changed")] = {}
    volumes: Annotated[
        list[dict[str, Any]], Meta(description="each in place of the Pod's volume of that name, where it has one")
    ] = []
    patch: Annotated[
        list[dict[str, Any]], Meta(description="last, a JSON patch (RFC 6902) of `/spec` and of labels and annotations")
    ] = []


def applying(
    overrides: Sequence[Override], namespace: str, labels: Mapping[str, str]
) -> Iterator[tuple[str, Override]]:
    """Those that a Pod of this home namespace with these labels meets, in order, each with its key in the file."""
    for index, override in enumerate(overrides):
        if override.namespaces and namespace not in override.namespaces:
            continue
        if override.selector is None or matches(override.selector, labels):
            yield f"overrides[{index}]", override
