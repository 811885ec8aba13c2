"""Find nuclei with Cellpose, a trained model of others (BSD licence), where it is installed.

H x W pixels. Cellpose downloads its weights itself, on first use, and keeps them in its own folder; they have terms
of their own. This was written from the code of Cellpose 4.2.1 and has not been run with its weights: its tests put a
stand-in in its place.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from phenolens.errors import InputError

INSTALL = 'pip install "phenolens[cellpose]"'


def label_with_cellpose(dna: npt.NDArray[Any], *, diameter_px: float, model: Any = None) -> npt.NDArray[np.int32]:
    """The label image (H, W) of a DNA channel as Cellpose sees it: 0 background, 1..n nuclei.

    `model` is a `cellpose.models.CellposeModel`; without one Cellpose's own default is loaded, once a process. It is
    told the diameter of a usual nucleus and nothing else. InputError when Cellpose or its weights are not there, and
    for an array that is not an image.
    """
    image = np.asarray(dna)
    if image.ndim != 2 or not image.size:
        raise InputError(f"the DNA channel has shape {image.shape}; expected one image (height, width)")
    if image.min() == image.max():
        return np.zeros(image.shape, np.int32)  # black or saturated all over: Cellpose would divide by nothing
    model = load_cellpose() if model is None else model
    return np.asarray(model.eval(image.astype(np.float32), diameter=diameter_px)[0]).astype(np.int32)


@lru_cache(maxsize=1)
def load_cellpose() -> Any:
    """Cellpose's own default model, on a CUDA card where there is one; it downloads the weights the first time.

    InputError, in one line, when it is not installed and when its weights neither lie here nor can be downloaded.
    """
    try:
        from cellpose import models
    except ImportError:
        raise InputError(f"Cellpose is not installed; {INSTALL}, or find nuclei without it (--cells found)") from None
    try:
        return models.CellposeModel(gpu=True)  # falls back to the processor by itself
    except Exception as error:  # whatever its download or its file of weights provokes
        said = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"Cellpose cannot load its weights ({said}); it downloads them on first use: run it once where the network "
            "is, or find nuclei without it (--cells found)"
        ) from error
