"""Stamps of what each cluster shows, taken by watches in the bench's own process: one clock for both sides."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from vnode.kube.client import PODS, Client
from vnode.kube.credentials import from_kubeconfig
from vnode.kube.objects import Object
from vnode.kube.watch import Applied, Backoff, Deleted, Listed, Source, follow
from vnode.telemetry.metrics import Metrics


@dataclass(slots=True)
class Stamps:
    """Loop times by Pod name."""

    added: dict[str, float] = field(default_factory=dict)
    bound: dict[str, float] = field(default_factory=dict)
    ready: dict[str, float] = field(default_factory=dict)
    gone: dict[str, float] = field(default_factory=dict)


class Watch:
    """Follows the Pods of one namespace of one cluster."""

    def __init__(self, kubeconfig: str, side: str, namespace: str) -> None:
        self._client = Client(from_kubeconfig(kubeconfig), side, Metrics())
        self._source = Source(self._client, PODS, {"fieldSelector": f"metadata.namespace={namespace}"})
        self._changed = asyncio.Event()
        self.stamps = Stamps()

    async def run(self) -> None:
        """Stamp until cancelled."""
        try:
            async for event in follow(self._source, Backoff()):
                moment = asyncio.get_running_loop().time()
                match event:
                    case Listed(items):
                        for item in items:
                            self._see(item, moment)
                    case Applied(item):
                        self._see(item, moment)
                    case Deleted(item):
                        self.stamps.gone.setdefault(item.meta.name, moment)
                self._changed.set()
        finally:
            await self._client.close()

    def _see(self, pod: Object, moment: float) -> None:
        stamps, name = self.stamps, pod.meta.name
        stamps.added.setdefault(name, moment)
        if name not in stamps.bound and b'"nodeName":' in pod.raw_spec:
            stamps.bound[name] = moment
        if name not in stamps.ready and _is_ready(pod):
            stamps.ready[name] = moment

    async def until(self, what: Callable[[Stamps], bool], limit_s: float) -> None:
        """Wait until the stamps say so."""
        async with asyncio.timeout(limit_s):
            while not what(self.stamps):
                self._changed.clear()
                await self._changed.wait()


def _is_ready(pod: Object) -> bool:
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in pod.status().get("conditions") or ())
