"""How soon the Node may be written again: somebody who undoes what we write meets us ever more rarely.

A second vnode for the same peer, by mistake, is the usual one: both write their own port. Used by `controller` alone.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final

log = logging.getLogger(__name__)

GAP_S: Final = 0.5
GAP_CAP_S: Final = 30.0


class Pace:
    """Of the Node called `name`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._at = float("-inf")
        self._written: Mapping[str, Any] = {}
        self._gap_s = GAP_S

    def wait_s(self) -> float:
        """Seconds until the next write may come; not above 0 when it may at once."""
        return self._at + self._gap_s - asyncio.get_running_loop().time()

    def wrote(self, changes: Mapping[str, Any]) -> None:
        """`changes` have just been written. The same ones again, so soon, were undone."""
        moment = asyncio.get_running_loop().time()
        undone = changes and changes == self._written and moment - self._at < 2 * self._gap_s + 1
        if undone and self._gap_s == 4 * GAP_S:
            log.warning("somebody undoes what is written, a second vnode perhaps", extra={"node": self._name})
        self._gap_s = min(2 * self._gap_s, GAP_CAP_S) if undone else GAP_S
        self._at, self._written = moment, changes
