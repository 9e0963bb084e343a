"""One connected peer: its session, made from a PeerSpec, and everything that lives and dies with it."""
