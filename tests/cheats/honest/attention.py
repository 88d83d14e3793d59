"""Softmax attention: the base as it is."""
