"""One hypothesis profile for all: no deadlines (the machine may be busy), and in CI the same examples every time.

And TLS connections as `vnode run` has them, so that what streams are tested with is what they are served with.
"""

import asyncio
import logging
import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from vnode import cli

settings.register_profile("vnode", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("vnode")

# pytest-asyncio asks for the current loop, before CPython 3.14 gets a new one, and drops it unclosed: a ResourceWarning
# in whichever test the garbage collector runs. Said to be none, there is none.
asyncio.set_event_loop(None)

cli._shrink_tls_buffers()


@pytest.fixture(autouse=True)
def _unchanged_log() -> Iterator[None]:
    """Commands that run in the tests' own process set logging up for themselves."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
