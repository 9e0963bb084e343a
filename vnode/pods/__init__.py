"""Home Pods and their mirrors at the peer: translation down and up, the plan for a pair, and who carries it out."""
