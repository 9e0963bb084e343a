"""Waiting for the world in tests: `eventually` is the only place that may sleep."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(reason: str, look: Callable[[], T | None], limit_s: float = 30.0, each_s: float = 0.1) -> T:
    """The first truthy answer of `look`; AssertionError naming `reason` when there is none within `limit_s`.

    An AssertionError or a missing key inside `look` counts as "not yet", and the last one is told.
    """
    deadline = time.monotonic() + limit_s
    last: object = None
    while True:
        try:
            found = look()
            last = repr(found)
            if found:
                return found
        except (AssertionError, LookupError) as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {limit_s:g} s: {reason}; last seen: {last}")
        time.sleep(each_s)
