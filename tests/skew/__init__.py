"""A peer of another Kubernetes version: the world's tests again, home as ever.

`python -m tests.skew --peer v1.36` builds the peer's components of that version, runs the tests and prints a table.
Not part of the test run: each version is another long build.
"""
