"""What one session does when a side falls silent, and when it answers again: whom to believe, and what to ask anew.

The peer's word comes from its probe, home's from the renewals of the Lease. Made and wired by `session`.
"""

from collections.abc import Iterable

from vnode.kube.client import Client
from vnode.node.heartbeat import Verdict
from vnode.pods.controller import PodController
from vnode.reflect.controller import Reflector
from vnode.runtime.informer import Informer


class Reach:
    """`of_home` and `of_peer` are the informers that hear of either side; more may be appended before they run."""

    def __init__(
        self,
        home: Client,
        peer: Client,
        of_home: Iterable[Informer],
        of_peer: Iterable[Informer],
        pods: PodController,
        reflector: Reflector,
    ) -> None:
        self.of_peer = list(of_peer)
        self._home, self._peer, self._of_home, self._pods, self._reflector = home, peer, list(of_home), pods, reflector
        self._away = False

    def peer_changed(self, verdict: Verdict) -> None:
        """Take the probe's word. A return ends what waits for answers, and hurries what waits for its next try."""
        if not verdict.up:
            self._away = True
            for informer in self.of_peer:
                informer.doubt()
            self._pods.peer_away(True)
        elif self._away:
            self._away = False
            self._pods.peer_away(False)
            self._peer.break_off()
            for informer in self.of_peer:  # even one that a list reached meanwhile: its stream may be dead again
                informer.refresh()
            self._pods.controller.queue.hurry()
            self._reflector.controller.queue.hurry()

    def home_returned(self, own: Informer) -> None:
        """Home answers again: what waits for it, or listens (`own`: to the Node), may do so on dead connections."""
        self._home.break_off()
        for informer in (own, *self._of_home):
            if informer.current:  # else another session's return has it listed already
                informer.refresh()
