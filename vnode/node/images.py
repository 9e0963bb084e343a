"""The images a virtual Node says it has: those most of the peer's nodes have, no more than a kubelet would list. Pure.

The scheduler prefers nodes that have a Pod's image; `kubectl describe node` counts them. Used by `capacity`, which
keeps each peer node's, and by `manifest`.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from vnode.kube.objects import JsonDict

MOST: Final = 50  # the kubelet's nodeStatusMaxImages
MOST_NAMES: Final = 5  # k8s.io/kubernetes v1.37 pkg/kubelet/nodestatus, MaxNamesPerImageInNodeStatus
MAX_NAME: Final = 512


class Image(NamedTuple):
    """One image: its names (digests and tags) and its size in bytes."""

    names: tuple[str, ...]
    size: int


def read_images(listed: Sequence[Mapping[str, Any]] | None) -> tuple[Image, ...]:
    """The largest of a Node's `status.images`."""
    images = [
        # Interned: a thousand nodes of a cluster have much the same images.
        Image(tuple(sys.intern(name) for name in (each.get("names") or ())[:MOST_NAMES] if len(name) <= MAX_NAME), size)
        for each in listed or ()
        if isinstance(size := each.get("sizeBytes", 0), int)
    ]
    return tuple(sorted((image for image in images if image.names), key=lambda image: -image.size)[:MOST])


def common_images(nodes: Iterable[Sequence[Image]]) -> tuple[Image, ...]:
    """What of the nodes' images to list: what most of them have, then the largest; in a kubelet's order, by size."""
    names: dict[str, list[str]] = {}
    sizes: dict[str, int] = {}
    counts: dict[str, int] = {}
    for images in nodes:
        for image in images:
            key = image.names[0]
            known = names.setdefault(key, [])
            known += [name for name in image.names if name not in known]
            sizes[key] = max(sizes.get(key, 0), image.size)
            counts[key] = counts.get(key, 0) + 1
    chosen = sorted(names, key=lambda key: (-counts[key], -sizes[key], key))[:MOST]
    chosen.sort(key=lambda key: (-sizes[key], key))
    return tuple(Image(tuple(sorted(names[key])[:MOST_NAMES]), sizes[key]) for key in chosen)


def images_json(images: Iterable[Image]) -> list[JsonDict]:
    """As `status.images`."""
    return [{"names": list(image.names), "sizeBytes": image.size} for image in images]
