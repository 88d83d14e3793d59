"""Sandbox and benchmark harness for agents that write attention mechanisms."""

__version__ = "0.1.0"
