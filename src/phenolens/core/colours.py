"""Channel colours and shared contrast: how crops become RGB pictures.

C channels, S crop side in px. Crops are floats; each channel is divided by its own maximum.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

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
# distinguish. Of more than three channels the first three are shown together: more colours add up to white.
COLOURS: dict[int, tuple[tuple[float, float, float], ...]] = {
    1: ((1.0, 1.0, 1.0),),
    2: ((1.0, 0.0, 1.0), GREEN),
    3: (RED, GREEN, BLUE),
}
MOST_TOGETHER = max(COLOURS)


@dataclass(frozen=True)
class Contrast:
    """How crops become colours: shared by all cells of a figure, originals and reconstructions alike."""

    channels: tuple[str, ...]  # names, in the order of the crops
    colours: np.ndarray  # (C, 3) RGB of each channel at full brightness, 0 to 1; black: not shown together with others
    black: np.ndarray  # (C,) value shown as black, at least 0
    white: np.ndarray  # (C,) value shown at full brightness, above `black` and at most 1

    def of_channels(self, *places: int) -> "Contrast":
        """The same ranges for some channels; one alone is grey."""
        some = list(places)
        colours = np.ones((1, 3)) if len(some) == 1 else self.colours[some]
        return Contrast(tuple(self.channels[place] for place in some), colours, self.black[some], self.white[some])

    def showing(self, names: Collection[str]) -> "Contrast":
        """The same with these channels only; those that had no colour get one, for at most MOST_TOGETHER."""
        shown = np.array([name in names for name in self.channels])
        colours = np.where(shown[:, None], self.colours, 0.0)
        if not colours[shown].any(axis=1).all():
            colours[shown] = channel_colours([name for name in self.channels if name in names])
        return replace(self, colours=colours)

    @property
    def coloured(self) -> list[str]:
        """The channels that are shown together."""
        return [name for name, rgb in zip(self.channels, self.colours) if rgb.any()]

    @property
    def has_hidden(self) -> bool:
        """Whether there are more channels than one picture shows, so that each should be shown alone too."""
        return len(self.channels) > MOST_TOGETHER


def channel_colours(channels: Sequence[str]) -> np.ndarray:
    """RGB (C, 3) of each channel: the paper's colours if all names are known, else COLOURS by their number.

    Of more than MOST_TOGETHER channels the others are black.
    """
    together = channels[:MOST_TOGETHER]
    known = [_paper_colour(name) for name in together]
    colours = np.zeros((len(channels), 3))
    if all(colour is not None for colour in known) and len(set(known)) == len(known):
        colours[: len(together)] = known
    elif together:
        colours[: len(together)] = COLOURS[len(together)]
    return colours


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
    return coloured(crop, contrast)


def coloured(pixels: np.ndarray, contrast: Contrast) -> np.ndarray:
    """Pixels (C, H, W) of any width as an RGB picture (H, W, 3), as `cell_image`."""
    black, white = contrast.black[:, None, None], contrast.white[:, None, None]
    brightness = np.clip((pixels - black) / (white - black), 0.0, 1.0)
    return np.clip(np.einsum("cyx,cr->yxr", brightness, contrast.colours), 0.0, 1.0)


def png(crop: np.ndarray, contrast: Contrast, *, level: int = 1) -> bytes:
    """The crop (C, S, S) as a PNG of its own size; at compression `level` 0, pictures of one size have one length."""
    return bytes(imagecodecs.png_encode(np.round(255 * cell_image(crop, contrast)).astype(np.uint8), level=level))


def colour_names(contrast: Contrast) -> str:
    """`DAPI red, tubulin green, actin blue`, for captions; of many channels also those that are not shown, in black."""
    shown = [(name, tuple(rgb)) for name, rgb in zip(contrast.channels, contrast.colours) if rgb.any()]
    hidden = [name for name, rgb in zip(contrast.channels, contrast.colours) if not rgb.any()]
    text = ", ".join(f"{channel_label(name)} {_WORDS[rgb]}" for name, rgb in shown) or "no channel is shown"
    return f"{text} (in no colour: {', '.join(map(channel_label, hidden))})" if hidden and contrast.has_hidden else text


def channel_label(name: str) -> str:
    """`DAPI`, or `channel 2` of a channel that has only a number."""
    return f"channel {name}" if name.isdigit() else name


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
}
