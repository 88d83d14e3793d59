"""Proxies: small models of an architecture, trained by our own code from scratch, many at once."""
