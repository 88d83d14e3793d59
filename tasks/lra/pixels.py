"""What the tasks on pixels share: images as rows of grey values, and a simple baseline.

A grey value is its own id, so 0 is black and not padding: the manifest's ``padded`` is 0, and the
mask that a model is given is True everywhere. Long Range Arena, unlike us, masks black pixels as
padding.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tasks.definition import Value
from tasks.lra.rows import DataRows, SplitRows, by_split, majority
from tasks.stream import Bytes

LEVELS = 256


def pixel_rows(
    images: Mapping[str, tuple[Bytes, Bytes]], classes: int, facts: Mapping[str, Value]
) -> DataRows:
    """Return images (n, side, side) and labels of each split as rows of pixels, line by line."""
    splits: dict[str, SplitRows] = {
        split: (pixels.reshape(len(pixels), -1), labels)
        for split, (pixels, labels) in images.items()
    }
    length = splits["train"][0].shape[1]
    shape = {"length": length, "vocabulary": LEVELS, "classes": classes, "padded": 0}
    baselines = {**majority(splits, classes), **nearest_mean(splits, classes)}
    return DataRows(splits, shape, baselines, facts)


def nearest_mean(splits: Mapping[str, SplitRows], classes: int) -> dict[str, float]:
    """Return the accuracy of predicting the class whose mean training image is nearest."""
    pixels, labels = splits["train"]
    means = np.stack(
        [
            pixels[labels == c].mean(axis=0, dtype=np.float64)
            if (labels == c).any()
            else np.full(pixels.shape[1], np.inf)
            for c in range(classes)
        ]
    )
    known: NDArray[np.intp] = np.flatnonzero(np.isfinite(means[:, 0]))
    means = means[known]

    def guess(tokens: Bytes) -> NDArray[np.intp]:
        # |x - m|² without |x|², which is the same for every class.
        scores = tokens.astype(np.float32) @ (2 * means.T).astype(np.float32)
        nearest: NDArray[np.intp] = (scores - (means**2).sum(axis=1)).argmax(axis=1)
        return known[nearest]

    return by_split("nearest_mean", splits, guess)


def shrink(images: Bytes, side: int) -> Bytes:
    """Return square images with ``side`` pixels to a side, each the mean of a block."""
    block = images.shape[1] // side
    if block == 1:
        return images
    blocks = images.reshape(len(images), side, block, side, block).astype(np.uint16)
    means: Bytes = (blocks.sum(axis=(2, 4)) // block**2).astype(np.uint8)
    return means
