"""The two hops of a peer, read from vnode's own metrics: how long Pods take down, and their status up. Pure.

vnode's metrics are behind the kubelet port of each of its Nodes, so the user's own right to `nodes/proxy` is all it
takes. Called by `gather`.
"""

from collections import defaultdict
from typing import Final

import msgspec

from vnode.kubelet.exposition import samples

_SERIES: Final = {
    "vnode_pods_hop_down_seconds_bucket": "down",
    "vnode_pods_hop_up_seconds_bucket": "up",
    "vnode_node_probe_seconds_bucket": "probe",
}


class Spread(msgspec.Struct, frozen=True, rename="camel"):
    """Of `count` times in seconds, since vnode was started."""

    count: int
    p50: float
    p99: float


class Hops(msgspec.Struct, frozen=True, rename="camel"):
    """Of one peer; None where nothing has been measured yet.

    `down`: from a Pod seen bound at home to its mirror; `up`: from a change at the peer to the status at home; `probe`:
    a request to the peer.
    """

    down: Spread | None = None
    up: Spread | None = None
    probe: Spread | None = None


def read_hops(exposition: str) -> dict[str, Hops]:
    """The hops of every peer that vnode's metrics tell of, by its name."""
    buckets: dict[str, dict[str, dict[float, float]]] = defaultdict(lambda: defaultdict(dict))
    for sample in samples(exposition, tuple(_SERIES)):
        if sample.name in _SERIES:
            buckets[sample.labels.get("peer", "")][_SERIES[sample.name]][float(sample.labels["le"])] = sample.value
    return {
        peer: Hops(**{name: spread for name, held in series.items() if (spread := _spread(held)) is not None})
        for peer, series in buckets.items()
    }


def _spread(buckets: dict[float, float]) -> Spread | None:
    count = buckets.get(float("inf"), 0.0)
    return Spread(int(count), _quantile(0.5, buckets), _quantile(0.99, buckets)) if count else None


def _quantile(share: float, buckets: dict[float, float]) -> float:
    """Within its bucket taken as evenly spread, as Prometheus' `histogram_quantile`; never past the last finite one."""
    rank = share * buckets[float("inf")]
    lower, below = 0.0, 0.0
    for upper, upto in sorted(buckets.items()):
        if upto >= rank:
            if upper == float("inf"):
                return lower
            return lower + (upper - lower) * (rank - below) / (upto - below) if upto > below else upper
        lower, below = upper, upto
    return lower
