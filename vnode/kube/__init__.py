"""Speak to one apiserver: credentials, requests, watches, and readers over raw objects. Knows no cluster's role."""
