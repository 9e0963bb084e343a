"""What one Pod asks of its node, by the scheduler's rules, and the few bytes of another's Pod worth keeping. Pure.

`share_of` is the `transform` of the store of a peer's Pods; `capacity` reads what it leaves.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from decimal import Decimal
from typing import Any, Final

import msgspec

from vnode import names
from vnode.kube.objects import Json, Meta, Object, format_quantity, quantity

Amounts = Mapping[str, Decimal]

HUGE_PAGES: Final = "hugepages-"
_POD_LEVEL: Final = ("cpu", "memory")
_ENDED: Final = ("Succeeded", "Failed")


def requests(spec: Json) -> dict[str, Decimal]:
    """What the scheduler counts for a Pod of this `spec`; `pods`, one for each Pod, is not in it.

    component-helpers v0.37.2 `resource.PodRequests`: all containers and sidecars together, or the most that the init
    phase needs at one time (KEP-753) where that is more; cpu, memory and huge pages as given for the whole Pod where
    they are (KEP-2837); the RuntimeClass's overhead on top.
    """
    running = added(_requested(container) for container in spec.get("containers") or ())
    sidecars: dict[str, Decimal] = {}
    starting: dict[str, Decimal] = {}
    for container in spec.get("initContainers") or ():
        own = _requested(container)
        at_once = added((sidecars, own))
        if container.get("restartPolicy") == "Always":
            sidecars = at_once
            running = added((running, own))
        starting = _largest(starting, at_once)
    total = _largest(running, starting)
    for name, amount in readable((spec.get("resources") or {}).get("requests")).items():
        if name in _POD_LEVEL or name.startswith(HUGE_PAGES):
            total[name] = amount
    return added((total, readable(spec.get("overhead"))))


def share_of(cluster_uid: str) -> Callable[[Object], Object | None]:
    """A store's transform that leaves of a peer's Pod its node and its requests, about 500 bytes.

    None, not kept, are Pods that take no room we do not know of: those not bound, those that have ended (KEP: they
    hold nothing), and those of home cluster `cluster_uid`, which home's scheduler counts itself.
    """

    def transform(pod: Object) -> Object | None:
        if pod.meta.labels.get(names.ORIGIN_CLUSTER_UID) == cluster_uid:
            return None
        spec = pod.spec()
        node = spec.get("nodeName")
        if not node or pod.status().get("phase") in _ENDED:
            return None
        meta = Meta(
            name=pod.meta.name,
            namespace=pod.meta.namespace,
            uid=pod.meta.uid,
            resource_version=pod.meta.resource_version,
        )
        amounts = {name: format_quantity(amount) for name, amount in sorted(requests(spec).items())}
        return Object(meta, msgspec.json.encode({"nodeName": node, "requests": amounts}), b"")

    return transform


def read_share(pod: Object) -> tuple[str, dict[str, Decimal]]:
    """The node, and what is taken there, of what `share_of` left of a Pod; the Pod itself is one of `pods`."""
    share = pod.spec()
    return share["nodeName"], {"pods": Decimal(1)} | readable(share["requests"])


def readable(given: Mapping[str, Any] | None) -> dict[str, Decimal]:
    """Of amounts that a peer tells, those that are amounts: one bad entry of one object is not to stop the rest."""
    found = {}
    for name, text in (given or {}).items():
        with suppress(ValueError):
            if (amount := quantity(text)) >= 0:
                found[name] = amount
    return found


def added(parts: Iterable[Amounts]) -> dict[str, Decimal]:
    """The sum of all parts, resource by resource."""
    total: dict[str, Decimal] = {}
    for part in parts:
        for name, amount in part.items():
            total[name] = total.get(name, Decimal(0)) + amount
    return total


def _largest(one: Amounts, other: Amounts) -> dict[str, Decimal]:
    zero = Decimal(0)
    return {name: max(one.get(name, zero), other.get(name, zero)) for name in {**one, **other}}


def _requested(container: Json) -> dict[str, Decimal]:
    # Limits without requests need no look: the apiserver has made them requests.
    return readable((container.get("resources") or {}).get("requests"))
