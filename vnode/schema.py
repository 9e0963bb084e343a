"""YAML text -> a msgspec Struct, or one line for each wrong key; a Struct -> the table of its keys.

Knows no key of ours: the schema is the Struct given, a `Meta(description=...)` beside each field its documentation.
Pure. Called by `config` and, for YAML's complaints, `rules`.
"""

import math
from collections.abc import Iterator
from typing import Annotated, Any, Final, NamedTuple, TypeVar

import msgspec
import yaml
from msgspec import Meta, Struct, inspect

from vnode.errors import ConfigError

_INT_OR_STRING: Final = "x-kubernetes-int-or-string"
Quantity = Annotated[str, Meta(extra_json_schema={_INT_OR_STRING: True})]  # `pods: 100` is as good as `pods: "100"`
_Struct = TypeVar("_Struct", bound=Struct)


class Row(NamedTuple):
    """One key of the file, for the README."""

    key: str
    type: str
    default: str
    meaning: str


def decode(text: str, file: str, kind: type[_Struct]) -> _Struct:
    """The `kind` that the YAML `text` describes. Raises ConfigError, a line `file: key: expectation` a problem."""
    try:
        raw = yaml.load(text, _Loader)  # noqa: S506 (a SafeLoader)
    except yaml.YAMLError as e:
        raise ConfigError(f"{file}: expected YAML: {yaml_problem(e)}") from e
    return convert({} if raw is None else raw, kind, f"{file}: ")


def convert(raw: object, kind: type[_Struct], place: str) -> _Struct:
    """The `kind` that plain data describes. Raises ConfigError, a line `place` and `key: expectation` a problem."""
    problems: list[str] = []
    checked = _checked(raw, inspect.type_info(kind), "", problems)
    if problems:
        raise ConfigError("\n".join(place + problem for problem in problems))
    return msgspec.convert(checked, kind)


def yaml_problem(error: yaml.YAMLError) -> str:
    """What PyYAML found, on one line."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return " ".join(str(error).split())


def rows(kind: type[Struct]) -> list[Row]:
    """Every key that `kind` knows, those within its parts too, in the schema's order."""
    return list(_rows(inspect.type_info(kind), ""))


def _rows(kind: inspect.Type, prefix: str) -> Iterator[Row]:
    assert isinstance(kind, inspect.StructType)
    for field in kind.fields:
        key = prefix + field.encode_name
        inner, meaning = field.type, ""
        if isinstance(inner, inspect.Metadata):
            meaning = (inner.extra_json_schema or {})["description"]
        inner = _plain(inner)
        if meaning:
            default = "required" if field.required else "{}" if field.default is msgspec.NODEFAULT else field.default
            if default == () or field.default_factory is list:
                default = "[]"
            yield Row(key, _expected(inner), "none" if default is None else str(default) or '""', meaning)
        if isinstance(inner, inspect.StructType):
            yield from _rows(inner, f"{key}.")
        item = inner.item_type if isinstance(inner, inspect.ListType | inspect.VarTupleType) else None
        if isinstance(item, inspect.StructType):
            yield from _rows(item, f"{key}[].")


class _Loader(yaml.SafeLoader):
    """Refuses a key given twice, of which PyYAML keeps the last silently."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)  # before merge keys (`<<`) bring in what may be overridden
        seen: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} given twice", key.start_mark)
            seen.add(str(key.value))
        return node


def _plain(kind: inspect.Type) -> inspect.Type:
    """`kind` without its metadata and without `| None`."""
    while isinstance(kind, inspect.Metadata | inspect.UnionType):
        kind = kind.type if isinstance(kind, inspect.Metadata) else kind.types[0]
    return kind


def _expected(kind: inspect.Type) -> str:
    match kind:
        case inspect.LiteralType(values):
            return "one of " + ", ".join(str(value) for value in values)
        case inspect.ListType(item) | inspect.VarTupleType(item):
            return "list of text" if isinstance(_plain(item), inspect.StrType) else "list of mappings"
        case inspect.DictType(_, inspect.Metadata()):
            return "mapping of text to quantity"
        case inspect.DictType(_, inspect.AnyType()):
            return "mapping"
        case inspect.DictType():
            return "mapping of text to text"
        case inspect.StructType():
            return "mapping"
        case _:
            return "text"


def _checked(value: Any, kind: inspect.Type, key: str, problems: list[str]) -> Any:
    """`value` as `msgspec.convert` will accept it; what it would not is added to `problems`, each with its key.

    msgspec's own errors name only the first problem, and neither the known keys nor the key within a mapping.
    An empty value (`node:`) of an optional key counts as absent, as everywhere in Kubernetes.
    """
    if isinstance(kind, inspect.Metadata) and _INT_OR_STRING in (kind.extra_json_schema or {}):
        value = str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
    match _plain(kind):
        case inspect.StructType(fields=fields) if isinstance(value, dict):
            known = {field.encode_name: field for field in fields}
            dot = f"{key}." if key else ""
            unknown = [name for name in value if name not in known]
            problems.extend(f"{dot}{name}: unknown key; known: {', '.join(known)}" for name in unknown)
            for name, field in known.items():
                if field.required and value.get(name) is None:
                    problems.append(f"{dot}{name}: missing, expected {_expected(_plain(field.type))}")
            given = {name: value[name] for name in known if value.get(name) is not None}
            return {name: _checked(item, known[name].type, dot + name, problems) for name, item in given.items()}
        case inspect.DictType(value_type=inner) if isinstance(value, dict):
            problems.extend(f"{key}[{name}]: expected a key in quotes" for name in value if not isinstance(name, str))
            return {name: _checked(item, inner, f"{key}[{name}]", problems) for name, item in value.items()}
        case inspect.ListType(item_type=inner) | inspect.VarTupleType(item_type=inner) if isinstance(value, list):
            return [_checked(item, inner, f"{key}[{index}]", problems) for index, item in enumerate(value)]
        case inspect.AnyType():
            problems.extend(_not_json(value, key))
            return value
        case inspect.LiteralType(values) if value in values:
            return value
        case inspect.StrType() if isinstance(value, str):
            return value
        case plain:
            quote = "" if isinstance(value, str | dict | list) or value is None else " (needs quotes)"
            problems.append(f"{key or 'document'}: expected {_expected(plain)}, got {_shown(value)}{quote}")
            return None


def _not_json(value: Any, key: str) -> Iterator[str]:
    """YAML knows dates, sets and keys that are no text; in what is Kubernetes' own there can be none."""
    match value:
        case dict():
            yield from (f"{key}[{name}]: expected a key in quotes" for name in value if not isinstance(name, str))
            for name, item in value.items():
                yield from _not_json(item, f"{key}.{name}")
        case list():
            for index, item in enumerate(value):
                yield from _not_json(item, f"{key}[{index}]")
        case str() | bool() | int() | None:
            return
        case float() if math.isfinite(value):
            return
        case _:
            yield f"{key}: expected text, a number, true, false or null, got {value} (needs quotes)"


def _shown(value: Any) -> str:
    return {type(None): "nothing", dict: "a mapping", list: "a list"}.get(type(value)) or repr(value)
