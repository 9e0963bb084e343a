"""What must be at the peer for a Pod to run there, and who sees to it: its namespace, and what its spec refers to.

`needs` is pure and decides; `reflect.controller` is the `Surroundings` of `pods.controller`, which may not know it.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Protocol

from vnode.kube.objects import Key, Object
from vnode.pods.translate import references, remote_pod
from vnode.policy.route import Reference, Refused, Route


class Surroundings(Protocol):
    """What must be at the peer before a mirror can be: its namespace, and what its spec refers to."""

    async def prepare(self, namespace: str, wanted: Iterable[Reference]) -> list[Reference]:
        """Have them; the references that home lacks are returned. Raises `Refused` (tell the user) or `ApiError`."""

    def use(self, pod: Key, wanted: Iterable[Reference]) -> None:
        """Say what a Pod needs from now on."""

    def holds(self, namespace: str, wanted: Reference) -> bool:
        """Whether there is a copy of ours at the peer."""

    def doubt(self, namespace: str) -> None:
        """The peer says the namespace is not there."""


def needs(
    local: Object, mirror: Object | None, route: Route, holds: Callable[[str, Reference], bool]
) -> set[Reference]:
    """What `local` needs at the peer from now on; `mirror` is its own, if it has one; `holds` as `Surroundings.holds`.

    That is what its translation names. A mirror may have been made with more, by other overrides than now: it keeps
    what home's Pod names as well and the peer has already. Never what the peer alone says it needs.
    """
    wanted: set[Reference] = set()
    with suppress(Refused):  # told on the Pod when it is looked at
        wanted = references(remote_pod(local, route)["spec"])
    if mirror is not None and route.overrides:
        named = references(local.spec()) & references(mirror.spec())
        wanted |= {each for each in named - wanted if holds(local.meta.namespace, each)}
    return wanted
