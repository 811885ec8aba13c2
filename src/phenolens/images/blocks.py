"""An image coarser and back: means of square blocks of pixels, and the image that is linear between them."""

import numpy as np
import numpy.typing as npt


def block_means(image: npt.NDArray[np.generic], *, block_px: int) -> npt.NDArray[np.float64]:
    """Means of square blocks of an image (H, W); the last row and column of blocks may be of fewer pixels."""
    starts = [np.arange(0, side, block_px) for side in image.shape]
    sums = np.add.reduceat(np.add.reduceat(image, starts[0], axis=0, dtype=np.float64), starts[1], axis=1)
    sides = [np.minimum(block_px, side - first) for first, side in zip(starts, image.shape)]
    return sums / np.outer(*sides)


def between_blocks(
    blocks: npt.NDArray[np.float64], shape: tuple[int, ...], *, block_px: int
) -> npt.NDArray[np.float64]:
    """The image (H, W) that is linear between the blocks' centres, and constant beyond the outermost."""
    for axis, side in enumerate(shape):
        starts = np.arange(0, side, block_px)
        centres = (starts + np.minimum(starts + block_px, side) - 1) / 2
        places = np.arange(side)
        blocks = np.apply_along_axis(lambda line: np.interp(places, centres, line), axis, blocks)  # noqa: B023
    return blocks
