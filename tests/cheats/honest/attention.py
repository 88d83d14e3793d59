"""Softmax attention: the base as it is."""

# ruff: noqa: F821
