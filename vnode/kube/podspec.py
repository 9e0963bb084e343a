"""What vnode reads of a Pod's manifest, with the API's types: a check of what no apiserver has checked. Pure.

An apiserver's Pods need none. A manifest in a file does, and so does a Pod after somebody's JSON patch: whatever reads
it then may take for granted what the API guarantees. Fields that are not here are nobody's concern.
Called by `policy.misfits`, `pods.translate` and `diff`.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct


class _Name(Struct):
    name: str | None = None


class _Source(Struct, rename="camel"):
    name: str | None = None
    secret_name: str | None = None
    optional: bool | None = None


class _Field(Struct, rename="camel"):
    field_path: str


class _Item(Struct, rename="camel"):
    field_ref: _Field | None = None


class _Downward(Struct):
    items: list[_Item] | None = None


class _Part(Struct, rename="camel"):
    config_map: _Source | None = None
    secret: _Source | None = None
    downward_api: _Downward | None = msgspec.field(default=None, name="downwardAPI")


class _Projected(Struct):
    sources: list[_Part] | None = None


class _Volume(_Part, rename="camel", kw_only=True):
    name: str
    projected: _Projected | None = None


class _Driver(Struct, rename="camel"):
    secret_ref: _Name | None = None
    node_publish_secret_ref: _Name | None = None


class _Origin(Struct, rename="camel"):
    config_map_ref: _Source | None = None
    secret_ref: _Source | None = None


class _ValueFrom(Struct, rename="camel"):
    field_ref: _Field | None = None
    config_map_key_ref: _Source | None = None
    secret_key_ref: _Source | None = None


class _Variable(Struct, rename="camel"):
    name: str
    value_from: _ValueFrom | None = None


class _Mount(Struct):
    name: str


class _Resources(Struct):
    requests: dict[str, str | int | float] | None = None
    limits: dict[str, str | int | float] | None = None


class _Container(Struct, rename="camel"):
    name: str
    image: str
    env: list[_Variable] | None = None
    env_from: list[_Origin] | None = None
    volume_mounts: list[_Mount] | None = None
    resources: _Resources | None = None


class _Rule(Struct):
    key: str


class _Selector(Struct, rename="camel"):
    match_expressions: list[_Rule] | None = None


class _Term(Struct, rename="camel"):
    topology_key: str
    label_selector: _Selector | None = None
    match_label_keys: list[str] = []
    mismatch_label_keys: list[str] = []
    namespaces: list[str] | None = None


class _PodChoice(Struct, rename="camel"):
    pod_affinity_term: _Term


class _PodAffinity(Struct, rename="camel", frozen=True):
    required_during_scheduling_ignored_during_execution: list[_Term] | None = None
    preferred_during_scheduling_ignored_during_execution: list[_PodChoice] | None = None


class _NodeChoice(Struct):
    preference: _Selector | None = None


class _NodeTerms(Struct, rename="camel"):
    node_selector_terms: list[_Selector] | None = None


class _NodeAffinity(Struct, rename="camel"):
    required_during_scheduling_ignored_during_execution: _NodeTerms | None = None
    preferred_during_scheduling_ignored_during_execution: list[_NodeChoice] | None = None


class _Affinity(Struct, rename="camel"):
    node_affinity: _NodeAffinity | None = None
    pod_affinity: _PodAffinity = _PodAffinity()
    pod_anti_affinity: _PodAffinity = _PodAffinity()


class _Toleration(Struct):
    key: str | None = None


class _Spec(Struct, rename="camel"):
    containers: Annotated[list[_Container], Meta(min_length=1)]
    init_containers: list[_Container] | None = None
    ephemeral_containers: list[_Container] | None = None
    volumes: list[_Volume] | None = None
    image_pull_secrets: list[_Name] | None = None
    service_account_name: str = ""
    node_selector: dict[str, str] | None = None
    tolerations: list[_Toleration] | None = None
    affinity: _Affinity | None = None
    topology_spread_constraints: list[_Term] | None = None
    runtime_class_name: str | None = None
    priority_class_name: str | None = None


class _Volumes(Struct):
    volumes: list[dict[str, str | _Driver | None]] | None = None  # every key but the name is a driver's


class _Metadata(Struct):
    name: str = ""
    namespace: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class _Pod(Struct):
    spec: _Spec
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)


class _OfDrivers(Struct):
    spec: _Volumes


def misfit(manifest: Any) -> str:
    """Where the manifest of a Pod (or its template) is wrong, and what is expected; "" when it can be read."""
    try:
        msgspec.convert(manifest, _Pod)
        msgspec.convert(manifest, _OfDrivers)
    except msgspec.ValidationError as error:
        problem, _, place = str(error).partition(" - at ")
        place = place.strip("`").removeprefix("$.")
        return f"{place}: {problem[0].lower()}{problem[1:]}" if place else problem
    return ""
