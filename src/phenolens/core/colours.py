"""Channel colours and shared contrast: how crops become RGB pictures.

C channels, S crop side in px. Crops are floats; each channel is divided by its own maximum.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import imagecodecs
import numpy as np

from phenolens.core.errors import InputError

RED, GREEN, BLUE = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)

# Lafarge et al. 2019, section 4.1: DNA red, beta-tubulin green, F-actin blue
PAPER_COLOURS = {
    ("dna", "dapi", "hoechst", "draq"): RED,
    ("tubulin",): GREEN,
    ("actin", "phalloidin"): BLUE,
}

# For other channels, by their number. Two colours that add up to white and that red-green blind people can
# distinguish; from four channels on, hues of the Okabe-Ito order, lightened so that each is visible on black.
COLOURS: dict[int, tuple[tuple[float, float, float], ...]] = {
    1: ((1.0, 1.0, 1.0),),
    2: ((1.0, 0.0, 1.0), GREEN),
    3: (RED, GREEN, BLUE),
}
MANY_COLOURS = (
    (0.10, 0.45, 1.00),  # blue
    (1.00, 0.62, 0.00),  # orange
    (0.00, 0.80, 0.55),  # bluish green
    (1.00, 0.30, 0.75),  # reddish purple
    (1.00, 0.95, 0.25),  # yellow
    (0.40, 0.85, 1.00),  # sky blue
    (1.00, 0.30, 0.10),  # vermilion
    (0.75, 0.75, 0.75),  # grey
)


@dataclass(frozen=True)
class Contrast:
    """How crops become colours: shared by all cells of a figure, originals and reconstructions alike."""

    channels: tuple[str, ...]  # names, in the order of the crops
    colours: np.ndarray  # (C, 3) RGB of each channel at full brightness, 0 to 1
    black: np.ndarray  # (C,) value shown as black, at least 0
    white: np.ndarray  # (C,) value shown at full brightness, above `black` and at most 1

    def of_channels(self, *places: int) -> "Contrast":
        """The same ranges for some channels; one alone is grey."""
        some = list(places)
        colours = np.ones((1, 3)) if len(some) == 1 else self.colours[some]
        return Contrast(tuple(self.channels[place] for place in some), colours, self.black[some], self.white[some])


def channel_colours(channels: Sequence[str]) -> np.ndarray:
    """RGB (C, 3) of each channel: the paper's colours if all names are known, else COLOURS by their number."""
    known = [_paper_colour(name) for name in channels]
    if all(colour is not None for colour in known) and len(set(known)) == len(known):
        return np.array(known, float).reshape(-1, 3)
    if len(channels) in COLOURS:
        return np.array(COLOURS[len(channels)])
    return np.array([MANY_COLOURS[index % len(MANY_COLOURS)] for index in range(len(channels))]).reshape(-1, 3)


def shared_contrast(crops: np.ndarray, channels: Sequence[str]) -> Contrast:
    """One contrast for crops (n, C, S, S), measured on originals and reused for every picture shown with them.

    Black is the median over cells of each channel's 2nd percentile, full brightness that of its 99.5th, so that
    camera background is dark and a single hot pixel does not set the scale. A channel that is flat in most cells gets
    the range 0 to 1. InputError when the crops do not have these channels.
    """
    crops = checked_crops(crops, channels, what="crops")
    low, high = np.percentile(np.clip(crops, 0, 1), [2, 99.5], axis=(2, 3))
    black, white = np.median(low, axis=0), np.median(high, axis=0)
    flat = white - black < 0.05
    return Contrast(tuple(channels), channel_colours(channels), np.where(flat, 0.0, black), np.where(flat, 1.0, white))


def cell_image(crop: np.ndarray, contrast: Contrast) -> np.ndarray:
    """The crop (C, S, S) as an RGB picture (S, S, 3), floats 0 to 1.

    Values are stretched from `black` to `white`, clipped to that range (reconstructions overshoot), and the channels'
    colours are added up.
    """
    checked_crops(crop[None], contrast.channels, what="crop")
    black, white = contrast.black[:, None, None], contrast.white[:, None, None]
    brightness = np.clip((crop - black) / (white - black), 0.0, 1.0)
    return np.clip(np.einsum("cyx,cr->yxr", brightness, contrast.colours), 0.0, 1.0)


def png(crop: np.ndarray, contrast: Contrast, *, level: int = 1) -> bytes:
    """The crop (C, S, S) as a PNG of its own size; at compression `level` 0, pictures of one size have one length."""
    return bytes(imagecodecs.png_encode(np.round(255 * cell_image(crop, contrast)).astype(np.uint8), level=level))


def colour_names(contrast: Contrast) -> str:
    """`DAPI red, tubulin green, actin blue`, for captions; a channel in black is left out, as it is in the picture."""
    shown = [(name, tuple(rgb)) for name, rgb in zip(contrast.channels, contrast.colours) if rgb.any()]
    return ", ".join(f"{name} {_WORDS[rgb]}" for name, rgb in shown) or "no channel is shown"


def checked_crops(crops: np.ndarray, channels: Sequence[str], *, what: str) -> np.ndarray:
    """The crops (n, C, S, S) as they are; InputError when they are not finite crops with these channels."""
    crops = np.asarray(crops)
    if crops.ndim != 4 or crops.shape[1] != len(channels) or crops.shape[2] != crops.shape[3] or not crops.size:
        raise InputError(
            f"{what}: shape {crops.shape}; expected at least one cell as (cells, {len(channels)}, side, side) "
            f"for the channels {', '.join(channels)}"
        )
    if not np.isfinite(crops).all():
        raise InputError(f"{what}: values that are not finite; look for a model that diverged or a broken crop")
    return crops


def _paper_colour(name: str) -> tuple[float, float, float] | None:
    for words, colour in PAPER_COLOURS.items():
        if any(word in name.lower() for word in words):
            return colour
    return None


_WORDS: Mapping[tuple[float, ...], str] = {
    RED: "red",
    GREEN: "green",
    BLUE: "blue",
    (1.0, 0.0, 1.0): "magenta",
    (1.0, 1.0, 1.0): "grey",
    **dict(
        zip(MANY_COLOURS, ("blue", "orange", "bluish green", "purple", "yellow", "sky blue", "vermilion", "light grey"))
    ),
}
