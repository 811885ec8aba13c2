"""Measure cells: size and shape, texture, where each channel's light lies. Numbers with names for real and drawn cells.

n crops, C channels, S x S px, each channel divided by its own maximum. Only the central cell of a crop counts.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from phenolens.core.colours import PAPER_COLOURS, RED, checked_crops
from phenolens.core.errors import InputError
from phenolens.morphology import shape, texture
from phenolens.morphology.segment import Outlines, outlines

CHUNK = 32  # crops measured at once: bounds the memory, and fits a processor's cache

OF_NUCLEUS = {
    "nucleus_area_px": "nucleus area, px²",
    "nucleus_eccentricity": "nucleus elongation (eccentricity), 0 round to 1 a line",
    "nucleus_solidity": "nucleus solidity, share of its convex hull that it fills; low when lobed or in pieces",
    "n_nuclear_fragments": "pieces of the nucleus, 1 when whole",
    "nucleus_dark_spots": "dark spots (nucleoli) in the nucleus, number",
    "nucleus_dark_depth": "depth of the darkest spot (nucleolus) in the nucleus, share of its light",
    "nucleus_share": "nucleus area, share of the cell area",
    "n_neighbours": "nuclei of other cells in the crop, number",
}
OF_CELL = {
    "cell_area_px": "cell area within the crop, px²",
    "cell_eccentricity": "cell elongation (eccentricity), 0 round to 1 a line",
    "cell_solidity": "cell solidity, share of its convex hull that it fills; low with corners and protrusions",
}
# `{}` is the channel, `{where}` the region that is looked at: the nucleus for the channel of the nuclei
OF_CHANNEL = {
    "mean": "mean {} in the {where}, share of the crop's maximum, background off",
    "fine_texture": "fine texture of {} in the {where} (1 to 2 px), relative to its mean",
    "coarse_texture": "coarse texture of {} in the {where} (2 to 5 px), relative to its mean",
    "sharpness": "sharpness of {}, share of the crop's contrast that is fine; low when out of focus",
}
OF_CYTOPLASM = {
    "spots": "bright spots of {} in the cell, number",
    "fibres": "fibres of {} in the cell, strength of thin bright lines relative to its mean",
    "alignment": "alignment of {} in the cell, 0 all directions to 1 a single one",
    "edge": "{} along the cell's edge, relative to its mean in the cell",
    "near_nucleus": "{} around the nucleus, relative to its mean outside the nucleus",
    "over_nucleus": "{} over the nucleus, relative to its mean outside the nucleus",
    "polarity_px": "distance of the centre of {} from the centre of the nucleus, px",
}
NEED_NUCLEUS = ("near_nucleus", "over_nucleus", "polarity_px")


def measures(crops: np.ndarray, *, channels: Sequence[str], nuclei: str | None = None) -> pd.DataFrame:
    """What can be measured of the central cell of each crop (n, C, S, S), real or decoded: a row a crop.

    `nuclei` names the channel of the nuclei; left out, it is the first whose name says DNA, DAPI, Hoechst or DRAQ.
    Where there is none, what needs a nucleus is no column. The columns depend on the channels alone; a value is NaN
    where it cannot be measured, such as of a nucleus that was not found. `describe` says what each column is.
    InputError when the crops do not have these channels, hold values that are not finite, or `nuclei` is none of them.
    """
    if len(set(channels)) < len(channels):
        raise InputError(f"channels {', '.join(channels)}: a name stands twice; expected a name of its own for each")
    nuclei = nuclei_channel(channels) if nuclei is None else nuclei
    if nuclei is not None and nuclei not in channels:
        raise InputError(f'nuclei: there is no channel "{nuclei}"; expected one of {", ".join(channels)}')
    if np.shape(crops)[:1] == (0,):
        return pd.DataFrame(columns=measure_names(channels, nuclei=nuclei), dtype=float)
    crops = checked_crops(crops, channels, what="crops to be measured")
    parts = [
        _measured(np.maximum(crops[start : start + CHUNK], 0).astype(float), list(channels), nuclei)
        for start in range(0, len(crops), CHUNK)
    ]
    return pd.concat(parts, ignore_index=True)[measure_names(channels, nuclei=nuclei)]


def measure_names(channels: Sequence[str], *, nuclei: str | None) -> list[str]:
    """The columns of `measures` for these channels, in their order; `nuclei` None where no channel shows nuclei."""
    names = [*(OF_NUCLEUS if nuclei is not None else ()), *OF_CELL]
    for channel in channels:
        names += [f"{channel}_{what}" for what in OF_CHANNEL]
        if channel != nuclei:
            names += [f"{channel}_{what}" for what in OF_CYTOPLASM if nuclei is not None or what not in NEED_NUCLEUS]
    return names


def describe(name: str, *, nuclei: str | None = None) -> str:
    """What a measure is, in plain words with its unit: `nucleus area, px²`.

    `nuclei` names the channel of the nuclei where its own name does not say so. InputError for a name that is none.
    """
    if name in OF_NUCLEUS or name in OF_CELL:
        return {**OF_NUCLEUS, **OF_CELL}[name]
    for what, words in {**OF_CHANNEL, **OF_CYTOPLASM}.items():
        channel = name.removesuffix(f"_{what}")
        if channel not in ("", name):
            shows_nuclei = channel == nuclei if nuclei is not None else nuclei_channel([channel]) is not None
            return words.format(channel, where="nucleus" if shows_nuclei else "cell")
    raise InputError(f'measure "{name}": not known; expected one of {", ".join([*OF_NUCLEUS, *OF_CELL])}, or '
                     f'<channel>_ and one of {", ".join([*OF_CHANNEL, *OF_CYTOPLASM])}')  # fmt: skip


def nuclei_channel(channels: Sequence[str]) -> str | None:
    """The first of these channels whose name says that it shows nuclei; None where none does."""
    words = next(words for words, colour in PAPER_COLOURS.items() if colour == RED)
    return next((name for name in channels if any(word in name.lower() for word in words)), None)


def _measured(crops: np.ndarray, channels: list[str], nuclei: str | None) -> pd.DataFrame:
    """The measures of a stack that is small enough for the memory, in any order of columns."""
    shown = dict(zip(channels, np.moveaxis(crops, 1, 0), strict=True))
    dna = None if nuclei is None else shown[nuclei]
    others = crops[:, [channel != nuclei for channel in channels]]
    cell = outlines(dna, others)
    columns: dict[str, np.ndarray] = {}
    if dna is not None:
        columns |= _of_nucleus(dna, cell)
    columns["cell_area_px"] = shape.area(cell.body)
    columns["cell_eccentricity"], columns["cell_solidity"] = shape.eccentricity(cell.body), shape.solidity(cell.body)
    for channel, image in shown.items():
        found = texture.of_region(image, cell.nucleus_depth if channel == nuclei else cell.body_depth)
        if channel != nuclei:
            found |= texture.of_cytoplasm(image, cell)
        columns |= {f"{channel}_{what}": values for what, values in found.items()}
    return pd.DataFrame(columns).astype(float)


def _of_nucleus(dna: np.ndarray, cell: Outlines) -> dict[str, np.ndarray]:
    """Size, shape, pieces and nucleoli, and the neighbours' nuclei."""
    found = cell.n_pieces > 0
    n_dark, depth = texture.dark_spots(dna, cell.nucleus_depth)
    return {
        "nucleus_area_px": shape.area(cell.nucleus),
        "nucleus_eccentricity": shape.eccentricity(cell.nucleus),
        "nucleus_solidity": shape.solidity(cell.nucleus),
        "n_nuclear_fragments": np.where(found, cell.n_pieces, np.nan),
        "nucleus_dark_spots": n_dark,
        "nucleus_dark_depth": depth,
        "nucleus_share": shape.area(cell.nucleus) / shape.area(cell.body),
        "n_neighbours": np.where(found, cell.n_neighbours, np.nan),
    }
