"""One hypothesis profile for all: no deadlines (the machine may be busy), and in CI the same examples every time."""

import os

from hypothesis import settings

settings.register_profile("vnode", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("vnode")
