"""What can go wrong in a dev cluster, as one message for the person who started it."""

from vnode.errors import VnodeError


class DevClusterError(VnodeError):
    """A cluster, node or demo cannot be started; the message says what failed and where its log is."""


class BuildError(DevClusterError):
    """A binary can neither be found nor built; the message says which one and how to mend it."""
