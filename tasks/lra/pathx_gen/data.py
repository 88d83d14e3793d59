"""The stand-in for Path-X: our own images, nothing to download."""

from functools import partial

from tasks.lra.pathfinder.data import prepare_as

prepare = partial(prepare_as, "lra/pathx-gen")
