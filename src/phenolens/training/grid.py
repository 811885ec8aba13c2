"""Draw watched cells: originals above their reconstructions, and, side by side, how these came to be.

n cells, S crop side in px. Cells and pictures are uint8 RGB, (n, S, S, 3) and (height, width, 3).
"""

from collections.abc import Mapping

import numpy as np

Array = np.ndarray

ACROSS = 8  # cells side by side
ENLARGED = 3  # pixels of a picture a pixel of a crop
FILM_CELLS = 4
FILM_STEPS = 12  # at most, so that the film is seen at once
FILM_ENLARGED = 2
BLOCK_GAP_PX, LABEL_PX = 6, 14
BETWEEN = 70  # grey of what is not a cell
# Figures of 3 x 5 pixels, five octal digits each: a row of three bits a digit.
FIGURES = ("75557", "26227", "71747", "71717", "55711", "74717", "74757", "71111", "75757", "75717")


def grid(originals: Array, drawn: Array) -> Array:
    """Rows of ACROSS originals, each row above the reconstructions of its cells, ENLARGED."""
    n, side = originals.shape[:2]
    blocks = -(-n // ACROSS)
    height = blocks * (2 * (side + 1) + BLOCK_GAP_PX) - BLOCK_GAP_PX + 1
    sheet = np.full((height, min(n, ACROSS) * (side + 1) + 1, 3), BETWEEN, np.uint8)
    for row, cells in enumerate((originals, drawn)):
        for index, cell in enumerate(cells):
            sheet[_place(index, side, row)] = cell
    return _enlarged(sheet, ENLARGED)


def drawn_in(picture: Array, n: int, side: int) -> Array:
    """The reconstructions (n, S, S, 3) in a picture that `grid` made."""
    sheet = picture[::ENLARGED, ::ENLARGED]
    return np.stack([sheet[_place(index, side, 1)] for index in range(n)])


def film(originals: Array, drawn: Mapping[int, Array]) -> Array:
    """The first FILM_CELLS cells, a row each: the original, then its reconstruction at FILM_STEPS steps or fewer.

    `drawn`: reconstructions by step. The step stands above its column.
    """
    n, side = min(FILM_CELLS, len(originals)), originals.shape[1]
    known = sorted(drawn)
    places = np.linspace(0, len(known) - 1, min(len(known), FILM_STEPS)).round().astype(int)
    steps = [known[place] for place in places]
    shape = (LABEL_PX + n * (side + 1), (1 + len(steps)) * (side + 1) + BLOCK_GAP_PX, 3)
    sheet = np.full(shape, BETWEEN, np.uint8)
    for column, cells in enumerate((originals, *(drawn[step] for step in steps))):
        left = column * (side + 1) + (BLOCK_GAP_PX if column else 0)
        if column:
            label = _number(steps[column - 1], widest=side)
            sheet[2 : 2 + label.shape[0], left : left + label.shape[1]][label] = 255
        for row, cell in enumerate(cells[:n]):
            top = LABEL_PX + row * (side + 1)
            sheet[top : top + side, left : left + side] = cell
    return _enlarged(sheet, FILM_ENLARGED)


def _place(index: int, side: int, row: int) -> tuple[slice, slice]:
    """Where a cell stands on the sheet; `row` 0: its original, 1: its reconstruction."""
    block, column = divmod(index, ACROSS)
    top = block * (2 * (side + 1) + BLOCK_GAP_PX) + row * (side + 1) + 1
    left = column * (side + 1) + 1
    return slice(top, top + side), slice(left, left + side)


def _number(number: int, *, widest: int) -> Array:
    """Where a number's pixels are, (height, width) bool, twice as large where that is not wider than `widest`."""
    figures = [[[int(bits) >> bit & 1 for bit in (2, 1, 0, 3)] for bits in FIGURES[int(f)]] for f in str(number)]
    drawn = np.concatenate(np.array(figures, bool), axis=1)
    return _enlarged(drawn, 2) if 2 * drawn.shape[1] <= widest else drawn[:, :widest]


def _enlarged(picture: Array, factor: int) -> Array:
    """Each pixel as a square of `factor` x `factor`."""
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)
