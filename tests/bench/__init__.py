"""Measured, not timed: what vnode costs beside the same work done straight at the peer, in one run on one machine.

`python -m tests.bench burst|logs|streams` prints JSON. Not part of the test run.
"""
