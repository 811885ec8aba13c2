"""Tell crops of cells from crops of nothing: camera noise in which a nucleus was segmented.

N crops, C channels, S x S pixels. The optics blur a cell's light over several pixels, so that neighbouring pixels
agree; the camera's noise is made anew in every pixel, so that they do not.
"""

import numpy as np
import numpy.typing as npt


def neighbour_correlation(crops: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """How far each pixel predicts the next one, for each channel of each crop: (N, C, S, S) -> (N, C), -1 to 1.

    Pearson's correlation over all pairs of pixels that touch, the mean of the pairs along rows and along columns. A
    constant channel predicts nothing: 0.
    """
    pixels = crops.astype(np.float32)
    along_x = _correlation(pixels[..., :, :-1], pixels[..., :, 1:])
    along_y = _correlation(pixels[..., :-1, :], pixels[..., 1:, :])
    return (along_x + along_y) * np.float32(0.5)


def is_noise(crops: npt.NDArray[np.uint16], *, threshold: float) -> npt.NDArray[np.bool_]:
    """Which crops have a channel without a picture in it (neighbour correlation below `threshold`): (N,)."""
    return np.any(neighbour_correlation(crops) < threshold, axis=1)


def is_constant(crops: npt.NDArray[np.uint16]) -> npt.NDArray[np.bool_]:
    """Which channels of which crops have one value in all pixels: (N, C, S, S) -> (N, C)."""
    return np.all(crops == crops[..., :1, :1], axis=(2, 3))


def _correlation(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    a = a - a.mean(axis=(2, 3), keepdims=True)
    b = b - b.mean(axis=(2, 3), keepdims=True)
    shared = np.einsum("ncyx,ncyx->nc", a, b)
    spread = np.sqrt(np.einsum("ncyx,ncyx->nc", a, a) * np.einsum("ncyx,ncyx->nc", b, b))
    return np.divide(shared, spread, out=np.zeros_like(shared), where=spread > 0)
