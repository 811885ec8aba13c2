"""Crops as PNG files: in the colours of the study's channels, and brighter, darker or with channels left out.

C channels, S crop side in px.
"""

from collections.abc import Sequence
from dataclasses import replace

import imagecodecs
import numpy as np

from phenolens.colours import Contrast, cell_image


def png(crop: np.ndarray, contrast: Contrast) -> bytes:
    """A crop (C, S, S), floats, as a PNG of its own size."""
    pixels = np.round(255 * cell_image(crop, contrast)).astype(np.uint8)
    return bytes(imagecodecs.png_encode(pixels, level=1))


def adjusted(contrast: Contrast, *, channels: Sequence[str] | None, bright: int = 100) -> Contrast:
    """The same contrast with only these channels (all when none is named), and `bright` percent as bright.

    Black stays where it is; full brightness is reached at a value that is so much lower or higher.
    """
    shown = np.array([not channels or name in channels for name in contrast.channels])
    white = contrast.black + (contrast.white - contrast.black) * 100 / bright
    return replace(contrast, colours=np.where(shown[:, None], contrast.colours, 0.0), white=white)
