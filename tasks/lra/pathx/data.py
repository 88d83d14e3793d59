"""Path-X: Pathfinder at 128 x 128 pixels, rows of 16,384."""

from functools import partial

from tasks.lra.pathfinder.data import prepare_as

prepare = partial(prepare_as, "lra/pathx")
