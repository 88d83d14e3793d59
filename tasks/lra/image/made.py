"""Made-up images for the profiles that must run without any download: gratings in noise.

The class is the direction of the stripes, one of ten between 0 and 180 degrees; their width, place
and contrast are drawn. A score on them says nothing about CIFAR-10.
"""

import numpy as np

from tasks.stream import Bytes, RandomStream

CLASSES = 10
NOISE = 0.25


def gratings(seed: int, count: int, side: int) -> tuple[Bytes, Bytes]:
    """Return images (count, side, side) and labels, each class as often as the next."""
    stream = RandomStream(seed)
    labels = (stream.order(count) % CLASSES).astype(np.uint8)
    period = side / (2 + 2 * stream.uniform(count))
    phase = 2 * np.pi * stream.uniform(count)
    contrast = 0.4 + 0.6 * stream.uniform(count)
    angle = np.pi * labels / CLASSES
    y, x = np.mgrid[:side, :side]
    along = np.cos(angle)[:, None, None] * x + np.sin(angle)[:, None, None] * y
    waves = np.sin(2 * np.pi * along / period[:, None, None] + phase[:, None, None])
    noise = 2 * stream.uniform(count * side * side).reshape(count, side, side) - 1
    grey = 0.5 + 0.5 * (contrast[:, None, None] * (1 - NOISE) * waves + NOISE * noise)
    return (255 * np.clip(grey, 0, 1) + 0.5).astype(np.uint8), labels
