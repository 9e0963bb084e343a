"""Where at the peer a mirror may run: what of home's wishes for nodes holds there, and what no mirror may do. Pure.

Called by `pods.translate`: `translate_placement` before the peer's overrides, `held_to` after them.
"""

from typing import Final

from vnode import names
from vnode.kube.objects import Json, JsonDict, without_empty
from vnode.policy.route import Route

_REQUIRED: Final = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED: Final = "preferredDuringSchedulingIgnoredDuringExecution"
# Labels that a peer's real nodes carry with the same meaning: requirements on them hold there too.
_TRUE_AT_PEER: Final = frozenset(
    {"kubernetes.io/os", "kubernetes.io/arch", "beta.kubernetes.io/os", "beta.kubernetes.io/arch"}
)
_OFF_VIRTUAL_NODES: Final = (
    {"key": "type", "operator": "NotIn", "values": ["virtual-kubelet"]},
    {"key": names.PEER, "operator": "DoesNotExist"},
)


def translate_placement(spec: JsonDict, route: Route) -> None:
    """Leave to the peer's scheduler, in `spec`, what is its own affair."""
    selector = spec.get("nodeSelector") or {}
    spec["nodeSelector"] = {key: value for key, value in selector.items() if key in _TRUE_AT_PEER}
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


def held_to(spec: Json, route: Route) -> JsonDict:
    """`spec` kept to the nodes its virtual Node stands for, and off the virtual nodes that the peer itself has.

    Whatever else it asks for: there it would travel on, in the end back to where it came from.
    """
    affinity = spec.get("affinity") or {}
    nodes = affinity.get("nodeAffinity") or {}
    terms = (nodes.get(_REQUIRED) or {}).get("nodeSelectorTerms") or [{}]
    apart = {"nodeSelectorTerms": [_off_virtual_nodes(term) for term in terms]}
    return {
        **spec,
        "nodeSelector": {**(spec.get("nodeSelector") or {}), **route.node_selector},
        "affinity": {**affinity, "nodeAffinity": {**nodes, _REQUIRED: apart}},
    }


def _off_virtual_nodes(term: Json) -> JsonDict:
    kept = [rule for rule in term.get("matchExpressions") or () if rule not in _OFF_VIRTUAL_NODES]
    return {**term, "matchExpressions": [*kept, *_OFF_VIRTUAL_NODES]}


def _ours(label: str | None) -> bool:
    return label is not None and label.startswith(f"{names.DOMAIN}/")


def _node_affinity(affinity: JsonDict) -> JsonDict:
    required = affinity.get(_REQUIRED) or {}
    terms = [_true_at_peer(term) for term in required.get("nodeSelectorTerms") or ()]
    if not all(terms):
        terms = []  # terms are alternatives: one that asks for nothing more lets every node do
    preferred = [
        {**choice, "preference": preference}
        for choice in affinity.get(_PREFERRED) or ()
        if (preference := _true_at_peer(choice.get("preference") or {}))
    ]
    return without_empty({_REQUIRED: without_empty({"nodeSelectorTerms": terms}), _PREFERRED: preferred})


def _true_at_peer(term: Json) -> JsonDict:
    kept = [rule for rule in term.get("matchExpressions") or () if rule.get("key") in _TRUE_AT_PEER]
    return {"matchExpressions": kept} if kept else {}


def _pod_affinity(affinity: JsonDict, kind: str, route: Route) -> JsonDict:
    must = [_term(term, route) for term in affinity.get(_REQUIRED) or () if not _ours(term.get("topologyKey"))]
    wish = [
        {**choice, "podAffinityTerm": _term(choice["podAffinityTerm"], route)}
        for choice in affinity.get(_PREFERRED) or ()
        if not _ours(choice["podAffinityTerm"].get("topologyKey"))
    ]
    if kind == "podAffinity":
        # The Pod to be near may run outside this peer, within the same zone or region at home.
        wish += [{"weight": 100, "podAffinityTerm": term} for term in must]
        must = []
    return without_empty({_REQUIRED: must, _PREFERRED: wish})


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
