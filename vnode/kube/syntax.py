"""What the apiserver accepts as a name, label or taint: the checks of apimachinery `pkg/util/validation`.

Pure. Each check returns what is expected of a wrong value, "" when it is right; `refused` and `label_problems` make a
line of it, with the key it was given for. Called by `rules`, `config` and `policy`.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final

# To be used with fullmatch.
DNS_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
NAME: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


def dns_label(text: str) -> str:
    """RFC 1123 label: names of namespaces, Services."""
    return "" if DNS_LABEL.fullmatch(text) else "expected a DNS-1123 label (a-z, 0-9 and -, at most 63 characters)"


def dns_subdomain(text: str) -> str:
    """RFC 1123 subdomain: names of Nodes, Pods, most objects."""
    right = len(text) <= 253 and all(re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", part) for part in text.split("."))
    return "" if right else "expected a DNS-1123 subdomain (a-z, 0-9, - and ., at most 253 characters)"


def qualified_name(text: str) -> str:
    """Keys of labels and taints, names of resources: `[subdomain/]name`."""
    domain, slash, name = text.rpartition("/")
    if NAME.fullmatch(name) and (not slash or not dns_subdomain(domain)):
        return ""
    return "expected a key [domain/]name (name: letters, digits, -, _ and ., at most 63 characters)"


def label_value(text: str) -> str:
    """Values of labels and taints; may be empty."""
    if not text or NAME.fullmatch(text):
        return ""
    return "expected a label value (letters, digits, -, _ and ., at most 63 characters)"


def refused(key: str, check: Callable[[str], str], value: str) -> Iterator[str]:
    """One line when `check` does not accept `value`."""
    expectation = check(value)
    if expectation:
        yield f"{key}: {expectation}, got {value!r}"


def label_problems(key: str, labels: Mapping[str, str]) -> Iterator[str]:
    """A line for each key and each value that no label may have."""
    for name, value in labels.items():
        yield from refused(f"{key}[{name}]", qualified_name, name)
        yield from refused(f"{key}[{name}]", label_value, value)
