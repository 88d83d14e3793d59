"""Draws Pathfinder images: two dashed contours among shorter ones, and two discs on their ends.

The stimulus of Linsley et al. 2018 (arXiv 1805.08315), with the parameters of Long Range Arena's
hard sets, by our own generator. A snake is one of the two contours or a shorter distractor; a
paddle is one of its dashes. All snakes are laid out before the label is drawn. The label says
whether the discs stand on the two ends of one contour (1) or on one end of each (0); only the
places of the discs depend on it. Their distance would depend on it, too, so images are kept in
pairs of both labels with the same distance, to within a thirty-second of the side.

Many layouts grow at once; a layout that finds no room is dropped, as in the original.
"""

import itertools
import os
import signal
from collections import deque
from collections.abc import Generator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from threading import Thread

import numpy as np
from numpy.typing import NDArray

from tasks.stream import Bytes, Doubles, Ints, RandomStream

Flags = NDArray[np.bool_]

CANDIDATES = 8
"""Directions tried for the next paddle before a snake is given up."""
TRIES = 12
"""Snakes tried, each from another place, before a layout is given up."""
LAYOUTS_AT_ONCE_PIXELS = 1_000_000


@dataclass(frozen=True)
class ImageStyle:
    """What an image looks like; lengths in pixels. See the table in docs/reference/tasks.md."""

    side: int
    paddles: int
    distractors: int
    distractor_paddles: int
    paddle_length: float
    thickness: float
    margin: float
    seed_distance: float
    continuity: float
    marker_radius: float
    snake_contrast: float
    marker_contrast: float
    padding: float = 1.0
    antialias: int = 4
    cells: int = 2
    """Cells of the occupancy grid per pixel, along each axis."""


@dataclass(frozen=True)
class Layouts:
    """Where the parts of n images lie. ``paddles``: (n, snakes, paddles, 4) as x0, y0, x1, y1, the
    two contours first, NaN after a distractor's end; ``markers``: (n, 2, 2); ``labels``: (n,)."""

    paddles: Doubles
    markers: Doubles
    labels: Bytes


class OccupancyGrid:
    """Which cells are taken, in many layouts at once; the padding along the edges is taken, too.

    The grid extends far enough beyond the image that every cell looked at or marked lies on it.
    """

    def __init__(self, layouts: int, style: ImageStyle) -> None:
        self.style = style
        reach = style.seed_distance + 2 * (style.paddle_length + style.margin)
        self._border = int(np.ceil(reach)) * style.cells
        self.width = style.side * style.cells + 2 * self._border
        low = self._border + int(np.ceil(style.padding * style.cells))
        free = np.ones((self.width, self.width), bool)
        free[low : self.width - low, low : self.width - low] = False
        self.taken: Flags = np.repeat(free.reshape(1, -1), layouts, axis=0)
        # No centre line comes nearer to another than this: the gap between edges is the margin.
        self._disc = self._offsets(style.margin + style.thickness)
        self._marker = self._offsets(style.marker_radius + style.thickness)
        steps = max(2, int(np.ceil(style.paddle_length * style.cells)) + 1)
        self._along = np.linspace(0.0, 1.0, steps)[:, None]

    def _offsets(self, radius: float) -> Ints:
        reach = int(np.ceil(radius * self.style.cells))
        y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
        near = x * x + y * y <= (radius * self.style.cells) ** 2
        offsets: Ints = (y[near] * self.width + x[near]).astype(np.int64)
        return offsets

    def cells(self, points: Doubles) -> Ints:
        """Return the number of the cell of each point (..., 2)."""
        at = (points * self.style.cells + self._border).astype(np.int64)
        return at[..., 1] * self.width + at[..., 0]

    def along(self, start: Doubles, end: Doubles) -> Ints:
        """Return the cells from ``start`` to ``end``: (..., 2) → (..., points)."""
        step = (end - start)[..., None, :]
        return self.cells(start[..., None, :] + self._along * step)

    def covered(self, cells: Ints, *, marker: bool = False) -> Ints:
        """Return the cells around ``cells`` (n, k) that everything else must stay out of."""
        disc = self._marker if marker else self._disc
        return (cells[:, :, None] + disc).reshape(len(cells), cells.shape[1] * len(disc))


def unit(angle: Doubles) -> Doubles:
    """Return the unit vectors (..., 2) of angles."""
    return np.stack((np.cos(angle), np.sin(angle)), axis=-1)


def grow(
    stream: RandomStream, ground: OccupancyGrid, rows: Ints, start: Doubles, paddles: int
) -> tuple[Doubles, Flags, Flags]:
    """Grow one snake from ``start`` (m, 2) in each of the layouts ``rows`` (m,).

    The next paddle turns by a random angle with density proportional to cos(angle * continuity), up
    to the angle where that is 0. Returns paddles (m, paddles, 4), whether the snake found room
    (m,), and the cells it takes (m, cells). ``ground`` is not changed.
    """
    style, count = ground.style, len(rows)
    body = np.full((count, paddles, 4), np.nan)
    own: Flags = np.zeros((count, ground.taken.shape[1]), bool)
    live = np.flatnonzero(~ground.taken[rows, ground.cells(start)])
    head, angle = start[live], np.zeros(len(live))
    latest = np.zeros((len(live), 0), np.int64)  # cells of the last paddle: the next is close to it
    for step in range(paddles):
        u = stream.uniform(len(live) * CANDIDATES).reshape(-1, CANDIDATES)
        if step == 0:
            angles, starts = 2 * np.pi * u, np.repeat(head[:, None], CANDIDATES, axis=1)
        else:
            angles = angle[:, None] + np.arcsin(2 * u - 1) / style.continuity
            starts = head[:, None] + style.margin * unit(angles)
        ends = starts + style.paddle_length * unit(angles)
        cells = ground.along(starts, ends)
        blocked: Flags = np.asarray(ground.taken[rows[live][:, None, None], cells].any(axis=-1))
        blocked |= own[live[:, None, None], cells].any(axis=-1)
        chosen = blocked.argmin(axis=1)
        each = np.arange(len(live))
        fits = ~blocked[each, chosen]
        each, chosen = each[fits], chosen[fits]
        live, angle, head = live[fits], angles[each, chosen], ends[each, chosen]
        body[live, step] = np.concatenate((starts[each, chosen], head), axis=1)
        own[live[:, None], ground.covered(latest[fits])] = True
        latest = cells[each, chosen]
    own[live[:, None], ground.covered(latest)] = True
    whole = np.zeros(count, bool)
    whole[live] = True
    return body, whole, own


def layouts(stream: RandomStream, style: ImageStyle, count: int) -> Layouts:
    """Lay out ``count`` images and return those that found room, with balanced labels."""
    ground = OccupancyGrid(count, style)
    bodies = np.full((count, 2 + style.distractors, style.paddles, 4), np.nan)
    rows = np.arange(count)
    for number in range(2 + style.distractors):
        rows = _place(stream, ground, bodies, number, rows)
    return _label(stream, style, bodies[rows])


def _place(
    stream: RandomStream, ground: OccupancyGrid, bodies: Doubles, number: int, rows: Ints
) -> Ints:
    """Lay out one more snake in each of ``rows``; return the rows in which it found room.

    Numbers 0 and 1 are the contours. Room for a disc is kept around each of their ends, whether or
    not a disc will stand there, so that the snakes laid out later do not reveal the label.
    """
    style = ground.style
    length = style.paddles if number < 2 else style.distractor_paddles
    missing, placed = rows, []
    for _ in range(TRIES):
        if number == 1:
            # Vary the distance: a fixed one would occur only between the starts of two contours.
            away = style.seed_distance + (2 * stream.uniform(len(missing)) - 1) * style.side / 32
            around = away[:, None] * unit(2 * np.pi * stream.uniform(len(missing)))
            start = bodies[missing, 0, 0, :2] + around
        else:
            span = style.side - 2 * style.padding
            start = style.padding + span * stream.uniform(2 * len(missing)).reshape(-1, 2)
        body, fits, own = grow(stream, ground, missing, start, length)
        if number < 2:
            ends = np.stack((body[:, 0, :2], body[:, -1, 2:]), axis=1)
            whole = np.flatnonzero(fits)
            discs = ground.covered(ground.cells(ends[whole]), marker=True)
            own[whole[:, None], discs] = True
            if number == 1:
                fits[whole] = ~_on_contour(ground, bodies[missing[whole], 0], discs)
        done = missing[fits]
        bodies[done, number, :length] = body[fits]
        ground.taken[done] |= own[fits]
        placed.append(done)
        missing = missing[~fits]
        if not len(missing):
            break
    return np.sort(np.concatenate(placed))


def _on_contour(ground: OccupancyGrid, body: Doubles, cells: Ints) -> Flags:
    """Return whether any of ``cells`` (n, k) lies on the centre line of the snake ``body``."""
    line = ground.along(body[:, :, :2], body[:, :, 2:])
    line = line.reshape(len(body), line.shape[1] * line.shape[2])
    marked = np.zeros((len(body), ground.taken.shape[1]), bool)
    marked[np.arange(len(body))[:, None], line] = True
    return np.asarray(np.take_along_axis(marked, cells, axis=1).any(axis=1))


def _label(stream: RandomStream, style: ImageStyle, snakes: Doubles) -> Layouts:
    """Draw labels and disc places; keep pairs of both labels with about the same disc distance."""
    count = len(snakes)
    each = np.arange(count)
    ends = np.stack((snakes[:, :2, 0, :2], snakes[:, :2, style.paddles - 1, 2:]), axis=2)
    labels = stream.below(2, count)
    snake, end, other_end = (stream.below(2, count) for _ in range(3))
    one = ends[each, snake, end]
    same, other = ends[each, snake, 1 - end], ends[each, 1 - snake, other_end]
    two = np.where(labels[:, None] == 1, same, other)
    distance = np.linalg.norm(one - two, axis=1)
    bins = (distance / (style.side / 32)).astype(np.int64)
    pairs = []
    for value in np.unique(bins):
        positive = np.flatnonzero((bins == value) & (labels == 1))
        negative = np.flatnonzero((bins == value) & (labels == 0))
        least = min(len(positive), len(negative))
        pairs.append(np.stack((positive[:least], negative[:least]), axis=1))
    # Shuffled by pairs, so that wherever the images are cut off, both labels are as frequent.
    matched = np.concatenate(pairs) if pairs else np.zeros((0, 2), np.int64)
    kept = matched[stream.order(len(matched))].reshape(-1)
    markers = np.stack((one, two), axis=1)
    return Layouts(snakes[kept], markers[kept], labels[kept].astype(np.uint8))


def draw(style: ImageStyle, found: Layouts) -> Bytes:
    """Return the images, (n, side, side), 0 to 255, as mean coverage of finer pixels."""
    scale = style.antialias
    width = style.side * scale
    count = len(found.labels)
    canvas: Flags = np.zeros((count, width, width), bool)
    # Points stay half a finer pixel within the edges: each fills the whole finer pixel it is in.
    fine = 0.5 / scale
    trim = min(0.5, fine / style.paddle_length)
    along = np.linspace(trim, 1 - trim, int(np.ceil(style.paddle_length / fine)) + 1)
    half = max(0.0, style.thickness / 2 - fine)
    across = np.linspace(-half, half, int(np.ceil(2 * half / fine)) + 1)
    image, snake, paddle = np.nonzero(~np.isnan(found.paddles[..., 0]))
    x0, y0, x1, y1 = found.paddles[image, snake, paddle].T
    length = np.hypot(x1 - x0, y1 - y0)
    normal_x, normal_y = (y0 - y1) / length, (x1 - x0) / length
    for part in along:
        x, y = x0 + part * (x1 - x0), y0 + part * (y1 - y0)
        for aside in across:
            _dot(canvas, image, x + aside * normal_x, y + aside * normal_y, scale)
    grey = style.snake_contrast * _mean(canvas, style.side, scale)

    canvas[:] = False
    radius = style.marker_radius - fine
    steps = np.arange(-radius, radius + fine / 2, fine)
    each = np.arange(count)
    for dx in steps:
        for dy in steps[np.hypot(dx, steps) <= radius]:
            for marker in (0, 1):
                x, y = found.markers[:, marker].T
                _dot(canvas, each, x + dx, y + dy, scale)
    grey = np.maximum(grey, style.marker_contrast * _mean(canvas, style.side, scale))
    levels: Bytes = (np.clip(grey, 0, 1) * 255 + 0.5).astype(np.uint8)
    return levels


def _dot(canvas: Flags, image: Ints, x: Doubles, y: Doubles, scale: int) -> None:
    last = canvas.shape[1] - 1
    column = np.clip((x * scale).astype(np.int64), 0, last)
    row = np.clip((y * scale).astype(np.int64), 0, last)
    canvas[image, row, column] = True


def _mean(canvas: Flags, side: int, scale: int) -> NDArray[np.float32]:
    blocks = canvas.reshape(len(canvas), side, scale, side, scale)
    mean: NDArray[np.float32] = blocks.sum(axis=(2, 4), dtype=np.uint8) / np.float32(scale**2)
    return mean


def batch(style: ImageStyle, seed: int, number: int) -> tuple[Bytes, Bytes]:
    """Return images (n, side, side) and labels (n,): batch ``number`` of a seed."""
    size = max(64, LAYOUTS_AT_ONCE_PIXELS // style.side**2)
    found = layouts(RandomStream(seed, 2, number), style, size)
    return draw(style, found), found.labels


def images(
    style: ImageStyle, seed: int, workers: int = 1
) -> Generator[tuple[Bytes, Bytes], None, None]:
    """Yield endless batches, in order; the number of ``workers`` does not change them.

    With more than one, close the generator: until then the processes wait for more work.
    """
    if workers == 1:
        for number in itertools.count():
            yield batch(style, seed, number)
    # Not forked, because the caller may have threads.
    with ProcessPoolExecutor(workers, get_context("spawn"), _obey) as pool:
        waiting = deque(pool.submit(batch, style, seed, number) for number in range(2 * workers))
        try:
            for number in itertools.count(2 * workers):
                waiting.append(pool.submit(batch, style, seed, number))
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _obey() -> None:
    """Leave Ctrl-C to the parent process, and end when it ends, even if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_outlive_nobody, daemon=True).start()


def _outlive_nobody() -> None:
    if asking := parent_process():
        asking.join()
        os._exit(1)
