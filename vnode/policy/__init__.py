"""What may cross to a peer, and under which name. Pure: no I/O, no clock, no event loop."""
