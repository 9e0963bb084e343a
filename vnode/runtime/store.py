"""The last known state of one resource, which says what changed. Pure.

Only its informer and the writers of its objects (`learn`) change it. Everybody else reads.
"""

from collections.abc import Callable, Iterator

from vnode.kube.objects import Key, Object
from vnode.kube.watch import Applied, Deleted, Event, Listed


class Store:
    """Objects by key, newest wins; of all namespaces, or of several that are each listed and watched apart.

    `transform` may shrink an object before it is kept (None: not kept at all). What `apply` returns are the keys
    whose state changed in a way vnode can see, those a relist shows to be gone included.

    A writer that has just created or changed an object calls `learn` with the answer, so that nobody decides on
    the older state while the watch is on its way. An older event never undoes newer knowledge: versions are
    compared (resourceVersions of one resource are ordered numbers, KEP-5504). An answer that comes after the watch
    has already told the object's end brings nothing back.
    """

    def __init__(self, transform: Callable[[Object], Object | None] | None = None) -> None:
        self._items: dict[Key, Object] = {}
        self._transform = transform
        # By namespace ("": all) the newest version its watch has shown: what it was silent about by then is not there.
        self._shown: dict[str, int] = {}
        self.listed = False

    def get(self, key: Key) -> Object | None:
        """The object, or None."""
        return self._items.get(key)

    def __iter__(self) -> Iterator[Object]:
        return iter(self._items.values())

    def __len__(self) -> int:
        return len(self._items)

    def apply(self, event: Event) -> list[tuple[Key, Object | None, Object | None]]:
        """Take one event in; what changed, as (key, before, now). `before` of a deletion is its last state."""
        match event:
            case Listed(items, version, namespace):
                return self._replace(items, version, namespace)
            case Applied(item):
                self._show(item)
                return self._put(item)
            case Deleted(item):
                self._show(item)
                held = self._items.get(item.key)
                if held is None or held.version > item.version > 0:
                    return []  # never known, or the end of an earlier object of this name
                del self._items[item.key]
                last = self._transform(item) if self._transform else item
                return [(item.key, last or held, None)]

    def learn(self, item: Object) -> list[tuple[Key, Object | None, Object | None]]:
        """Take in an object the apiserver has just answered with."""
        if item.key not in self._items and 0 < item.version <= self._shown.get(self._part(item.key), 0):
            return []
        return self._put(item)

    def forget(self, key: Key, uid: str) -> list[tuple[Key, Object | None, Object | None]]:
        """Drop an object the apiserver has just said is not there."""
        held = self._items.get(key)
        if held is None or held.uid != uid:
            return []
        del self._items[key]
        return [(key, held, None)]

    def _put(self, item: Object, *, even_older: bool = False) -> list[tuple[Key, Object | None, Object | None]]:
        held = self._items.get(item.key)
        if held is not None and held.version > item.version > 0 and not even_older:
            return []
        kept = self._transform(item) if self._transform else item
        if kept is None:
            if held is None:
                return []
            del self._items[item.key]
            return [(item.key, held, None)]
        self._items[kept.key] = kept
        if held is not None and kept.same(held):
            return []
        return [(kept.key, held, kept)]

    def _part(self, key: Key) -> str:
        """The namespace whose watch brings this key, "" when one watch brings all."""
        return key.namespace if key.namespace in self._shown else ""

    def _show(self, item: Object) -> None:
        part = self._part(item.key)
        self._shown[part] = max(self._shown.get(part, 0), item.version)

    def _replace(
        self, items: list[Object], version: int, namespace: str
    ) -> list[tuple[Key, Object | None, Object | None]]:
        changes: list[tuple[Key, Object | None, Object | None]] = []
        # The server was restored from a backup: its list alone counts.
        rewound = 0 < version < self._shown.get(namespace, 0)
        self._shown[namespace] = version
        present = set()
        for item in items:
            present.add(item.key)
            changes += self._put(item, even_older=rewound)
        for key, held in list(self._items.items()):
            # What was learnt after the list was made is not in it, and is still there.
            if namespace not in ("", key.namespace):
                continue
            if key not in present and (rewound or not held.version > version > 0):
                del self._items[key]
                changes.append((key, held, None))
        self.listed = True
        return changes
