"""Whether the grey values of a screen begin near 0, as light counted by a camera does.

Values that begin far above 0 (signed numbers stored with an offset, a raised black level, an inverted image) leave
little of the range to the cells: crops are scaled by their largest value. n fields, C channels.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from phenolens.core.errors import InputError
from phenolens.screens.read_image import read_field
from phenolens.screens.screen import Screen, UInt16Array, where_of

SAMPLE = 8  # fields whose pixels are read, evenly over the screen
DARKEST = 0.1  # percentile of a field's pixels that is called its darkest: dead pixels do not count
LARGEST_START = 0.5  # of the channel's largest value; a field whose darkest pixel is brighter is raised
LARGEST_OFFSET = {8: 60, 16: 1000}  # bits of the type -> grey values below which cameras begin (100 to 500 as a rule)


def sampled_fields(screen: Screen, n: int) -> pd.DataFrame:
    """The rows of at most `n` fields, evenly over the screen's table, the first and the last among them."""
    rows = np.linspace(0, len(screen.table) - 1, min(n, len(screen.table))).round().astype(int)
    return screen.table.iloc[np.unique(rows)]


def grey_range(pixels: UInt16Array) -> npt.NDArray[np.float64]:
    """The darkest and the largest value of each channel of a field (C, H, W): (C, 2)."""
    flat = pixels.reshape(len(pixels), -1)
    return np.stack([np.percentile(flat, DARKEST, axis=1), flat.max(axis=1)], axis=1)


def refuse_raised(ranges: Sequence[npt.NDArray[np.float64]], fields: pd.DataFrame, channels: Sequence[str]) -> None:
    """InputError for a channel that begins far above 0 in half of the fields or more; `ranges`: (n, C, 2)."""
    dark, bright = np.moveaxis(np.stack(ranges), 2, 0)
    offset = np.where(bright.max(axis=0) < 256, LARGEST_OFFSET[8], LARGEST_OFFSET[16])
    raised = (dark > LARGEST_START * bright.max(axis=0)) & (dark > offset)
    for place, channel in enumerate(channels):
        if 2 * raised[:, place].sum() >= len(raised):
            first = int(raised[:, place].argmax())
            raise InputError(
                f'{where_of(fields.iloc[first])}: the grey values of channel "{channel}" begin at '
                f"{dark[first, place]:,.0f} and end at {bright[:, place].max():,.0f} (so in "
                f"{raised[:, place].sum()} of {len(raised)} fields); expected values that begin near 0. Give the value "
                "that means no light with --black-level, which is subtracted (0 leaves them as they are), or correct "
                "the images"
            )


def check_grey_values(screen: Screen) -> None:
    """Read a sample of the fields; InputError as refuse_raised."""
    fields = sampled_fields(screen, SAMPLE)
    ranges = [grey_range(read_field(screen.files(row), where=where_of(row))) for _, row in fields.iterrows()]
    refuse_raised(ranges, fields, screen.channels)
