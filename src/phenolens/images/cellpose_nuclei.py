"""Find nuclei with Cellpose, a trained model of others (BSD licence), where it is installed.

H x W pixels. Cellpose downloads its weights itself, on first use, and keeps them in its own folder; they have terms
of their own. This was written from the code of Cellpose 4.2.1 and has not been run with it: its tests put a stand-in in
its place.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from phenolens.errors import InputError
from phenolens.images.nuclei import Labels, NucleiConfig

INSTALL = 'pip install "cellpose>=4"'


def label_with_cellpose(
    dna: npt.NDArray[Any], *, config: NucleiConfig | None = None, gpu: bool = False, model: Any = None
) -> Labels:
    """The label image (H, W) of a DNA channel as Cellpose sees it: 0 background, 1..n nuclei.

    `model` is a `cellpose.models.CellposeModel` to be used for many fields; without one it is loaded for this field.
    Cellpose is told the diameter of a usual nucleus. Of the config nothing else is used. InputError when Cellpose is
    not installed, and for an array that is not an image.
    """
    image = np.asarray(dna)
    if image.ndim != 2 or not image.size:
        raise InputError(f"the DNA channel has shape {image.shape}; expected one image (height, width)")
    model = load_cellpose(gpu=gpu) if model is None else model
    masks = model.eval(image.astype(np.float32), diameter=(config or NucleiConfig()).diameter_px)[0]
    return np.asarray(masks).astype(np.int32)


def load_cellpose(*, gpu: bool = False) -> Any:
    """Cellpose's own default model; it downloads the weights the first time. InputError when it is not installed."""
    try:
        from cellpose import models
    except ImportError:
        raise InputError(f"Cellpose is not installed; {INSTALL}, or find nuclei without it (label_nuclei)") from None
    return models.CellposeModel(gpu=gpu)
