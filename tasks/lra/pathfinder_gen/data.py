"""The stand-in for Pathfinder: our own images, nothing to download."""

from functools import partial

from tasks.lra.pathfinder.data import prepare_as

prepare = partial(prepare_as, "lra/pathfinder-gen")
