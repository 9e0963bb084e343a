"""Names of images, and what a peer's rules make of them. Pure; used by `policy.rewrite`.

A name is `[registry/]repository[:tag][@digest]`. In full it has the registry and the path that container runtimes add
to a short one (distribution/reference `ParseNormalizedNamed`): `nginx` is `docker.io/library/nginx`.
"""

from collections.abc import Iterable
from typing import Final

from vnode.policy.overrides import ImageRule

_HUB: Final = "docker.io"
_ENDS: Final = ("/", ":", "@")


def rewritten(image: str, rules: Iterable[ImageRule]) -> str:
    """`image` by the first rule that fits it; itself when none does."""
    for rule in rules:
        found = _by_exact(image, rule) if rule.exact else _by_prefix(image, rule)
        if found is not None:
            return _with_tag(found, rule.tag) if rule.tag else found
    return image


def _by_exact(image: str, rule: ImageRule) -> str | None:
    if _tagged(_full(image)) != _tagged(_full(rule.exact)):
        return None
    return rule.to or image


def _by_prefix(image: str, rule: ImageRule) -> str | None:
    for name in (image, _full(image)):
        if not _begins(name, rule.prefix):
            continue
        # A mirror below what it mirrors (docker.io/ -> docker.io/mirror/): what names the mirror already is right.
        if not rule.to or _begins(name, rule.to):
            return image
        return rule.to + name[len(rule.prefix) :]
    return None


def _begins(name: str, prefix: str) -> bool:
    rest = name.removeprefix(prefix)
    return name.startswith(prefix) and (not rest or prefix.endswith(_ENDS) or rest.startswith(_ENDS))


def _full(image: str) -> str:
    registry, slash, path = image.partition("/")
    if slash and ("." in registry or ":" in registry or registry == "localhost"):
        return image if registry != _HUB or "/" in path else f"{_HUB}/library/{path}"
    return f"{_HUB}/{image}" if slash else f"{_HUB}/library/{image}"


def _tagged(image: str) -> str:
    return image if "@" in image or ":" in image.rpartition("/")[2] else f"{image}:latest"


def _with_tag(image: str, tag: str) -> str:
    path, slash, last = image.partition("@")[0].rpartition("/")
    return f"{path}{slash}{last.partition(':')[0]}:{tag}"
