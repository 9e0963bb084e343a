"""The CustomResourceDefinition of `Peer`, made from the configuration's Structs: one schema for file and object.

What `rules` demands beyond a type is said here once more in the apiserver's language (patterns, CEL), so that a bad
Peer is refused where it is written; what two Peers do wrong together only `peers.objects` can find. `python -m
vnode.peers.crd` prints the manifest, which is `deploy/base/crd.yaml`. Pure.
"""

from collections.abc import Mapping
from typing import Any, Final

import yaml
from msgspec import inspect

from vnode import names
from vnode.config import OBJECT_SPEC
from vnode.kube import syntax
from vnode.kube.objects import JsonDict
from vnode.peers.status import COLUMNS, PeerStatus
from vnode.rules import OWNED_LABELS, RESOURCES

_INT_OR_STRING: Final = "x-kubernetes-int-or-string"
_RULES: Final = "x-kubernetes-validations"

_LABEL: Final = syntax.DNS_LABEL.pattern
_SUBDOMAIN: Final = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
_QUALIFIED: Final = rf"({_SUBDOMAIN}/)?{syntax.NAME.pattern}"
_OWNED: Final = ", ".join(f"'{label}'" for label in OWNED_LABELS)
_RESOURCES: Final = ", ".join(f"'{resource}'" for resource in RESOURCES)


def _rule(expression: str, message: str) -> JsonDict:
    return {"rule": expression, "message": message}


def _text(pattern: str, limit: int, *, may_be_empty: bool = True) -> JsonDict:
    return {"pattern": f"^({pattern})?$" if may_be_empty else f"^{pattern}$", "maxLength": limit}


def _matches(expression: str, pattern: str) -> str:
    escaped = pattern.replace("\\", "\\\\")
    return f"{expression}.matches('^({escaped})$')"


_KEYS: Final = _rule(
    f"self.all(k, size(k) <= 317 && {_matches('k', _QUALIFIED)})",
    "expected keys [domain/]name (name: letters, digits, -, _ and ., at most 63 characters)",
)
_LABELS: Final[JsonDict] = {"maxProperties": 64, _RULES: [_KEYS]}
_VALUE: Final = _text(syntax.NAME.pattern, 63)
_TEMPLATE: Final = "self.replace('{namespace}', 'n').replace('{cluster}', 'c')"

_NODE_NAME: Final = "(has({0}.node) && has({0}.node.name) ? {0}.node.name : '')"
# apimachinery `pkg/api/resource`, without a sign.
_QUANTITY: Final = r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]+)?$"

# By path within the spec, `[]` standing for the items of a list, `{}` for the values of a mapping; added to what the
# types give.
_MORE: Final[Mapping[str, JsonDict]] = {
    "": {
        _RULES: [
            _rule(
                f"{_NODE_NAME.format('self')} == {_NODE_NAME.format('oldSelf')}",
                "node.name cannot be changed: delete the Peer, which drains its Node, and create it anew",
            )
        ]
    },
    "secretRef.name": _text(_SUBDOMAIN, 253, may_be_empty=False),
    "secretRef.key": _text("[-._a-zA-Z0-9]+", 253),
    "node.name": _text(_SUBDOMAIN, 63),
    "node.labels": {
        **_LABELS,
        _RULES: [
            _KEYS,
            _rule(
                f"!self.exists(k, k in [{_OWNED}] || k.startsWith('{names.DOMAIN}/'))",
                "expected no label that vnode itself sets; for region and zone there are node.region and node.zone",
            ),
        ],
    },
    "node.labels{}": _VALUE,
    "node.taints": {
        "maxItems": 64,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["key", "effect"],
    },
    "node.taints[].key": _text(_QUALIFIED, 317, may_be_empty=False),
    "node.taints[].value": _VALUE,
    "node.region": _VALUE,
    "node.zone": _VALUE,
    "node.provider": _VALUE,
    "namespaces.template": {
        "maxLength": 128,
        _RULES: [
            _rule(
                f"self.split('{{namespace}}').size() == 2 && {_matches(_TEMPLATE, _LABEL)}",
                "expected a DNS-1123 label with {namespace} once and, where wanted, {cluster}",
            )
        ],
    },
    "namespaces.map": {
        "maxProperties": 256,
        _RULES: [
            _rule(f"self.all(k, {_matches('k', _LABEL)})", "expected names of namespaces as keys"),
            _rule(
                "self.all(k, self.exists_one(other, self[other] == self[k]))",
                "expected a remote namespace of its own for each namespace",
            ),
        ],
    },
    "namespaces.map{}": _text(_LABEL, 63, may_be_empty=False),
    "namespaces.selector.matchLabels": _LABELS,
    "namespaces.selector.matchLabels{}": _VALUE,
    "namespaces.selector.matchExpressions": {"maxItems": 64},
    "namespaces.selector.matchExpressions[]": {
        _RULES: [
            _rule(
                "(self.operator in ['In', 'NotIn']) == (self.?values.orValue([]).size() > 0)",
                "expected at least one value for In and NotIn, and none for Exists and DoesNotExist",
            )
        ]
    },
    "namespaces.selector.matchExpressions[].key": _text(_QUALIFIED, 317, may_be_empty=False),
    "namespaces.selector.matchExpressions[].values": {"maxItems": 64},
    "capacity.limits": {
        "maxProperties": 64,
        _RULES: [
            _rule(
                f"self.all(k, k in [{_RESOURCES}] || k.startsWith('hugepages-') "
                f"|| (k.contains('/') && {_matches('k', _QUALIFIED)}))",
                f"expected resources: {', '.join(RESOURCES)}, hugepages-SIZE or DOMAIN/NAME",
            ),
        ],
    },
    "capacity.limits{}": {"pattern": _QUANTITY, "minimum": 0},
    "capacity.nodeSelector": _LABELS,
    "capacity.nodeSelector{}": _VALUE,
}
_NAME: Final = _rule(
    _matches("self.metadata.name", _LABEL),
    "the name of a Peer is a DNS-1123 label: a-z, 0-9 and -, at most 63 characters",
)


def manifest() -> JsonDict:
    """The whole CustomResourceDefinition."""
    schema: JsonDict = {
        "type": "object",
        "description": "A peer cluster, which is a virtual Node of this one. Deleting it drains that Node first.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": _schema(inspect.type_info(OBJECT_SPEC), ""),
            "status": _schema(inspect.type_info(PeerStatus), "(status)"),
        },
        _RULES: [_NAME],
    }
    version = {
        "name": names.PEER_VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": COLUMNS,
        "schema": {"openAPIV3Schema": schema},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"peers.{names.DOMAIN}"},
        "spec": {
            "group": names.DOMAIN,
            "scope": "Cluster",
            "names": {"kind": "Peer", "listKind": "PeerList", "plural": "peers", "singular": "peer"},
            "versions": [version],
        },
    }


def text() -> str:
    """The manifest as YAML, as it lies in `deploy/base/crd.yaml`."""
    head = "# Made by `python -m vnode.peers.crd`; not to be edited.\n"
    return head + yaml.dump(manifest(), Dumper=_Dumper, sort_keys=False, width=110)


class _Dumper(yaml.SafeDumper):
    """Writes out what is used twice: apiservers read aliases, people do not."""

    def ignore_aliases(self, _: Any) -> bool:
        return True


def _schema(kind: inspect.Type, path: str) -> JsonDict:
    """The structural schema of one type, with what `_MORE` has for its place."""
    if isinstance(kind, inspect.Metadata):
        said = kind.extra_json_schema or {}
        of_both = {_INT_OR_STRING: True} | _MORE.get(path, {})
        schema = of_both if _INT_OR_STRING in said else _schema(kind.type, path)
        return ({"description": said["description"]} if "description" in said else {}) | schema
    return _of_type(kind, path) | _MORE.get(path, {})


def _of_type(kind: inspect.Type, path: str) -> JsonDict:
    match kind:
        case inspect.UnionType(types):  # the only unions are `| None`
            (inner,) = (each for each in types if not isinstance(each, inspect.NoneType))
            return _schema(inner, path)
        case inspect.StructType(fields=fields):
            dot = f"{path}." if path else ""
            required = [field.encode_name for field in fields if field.required]
            parts = {field.encode_name: _schema(field.type, dot + field.encode_name) for field in fields}
            return {"type": "object", **({"required": required} if required else {}), "properties": parts}
        case inspect.DictType(value_type=inspect.AnyType()):
            return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        case inspect.DictType(value_type=inner):
            return {"type": "object", "additionalProperties": _schema(inner, f"{path}{{}}")}
        case inspect.ListType(item_type=inner) | inspect.VarTupleType(item_type=inner):
            return {"type": "array", "items": _schema(inner, f"{path}[]")}
        case inspect.LiteralType(values):
            return {"type": "string", "enum": list(values)}
        case inspect.StrType():
            return {"type": "string"}
        case inspect.BoolType():
            return {"type": "boolean"}
        case inspect.IntType():
            return {"type": "integer"}
        case inspect.FloatType():
            return {"type": "number"}
        case _:
            raise TypeError(f"{path}: no schema for {kind}")


if __name__ == "__main__":
    print(text(), end="")
