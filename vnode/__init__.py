"""vnode: a cluster can simply be a node."""

__version__ = "0.1.0"
