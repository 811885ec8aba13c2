import numpy as np
import pytest
from scipy import ndimage

from phenolens.crops.rank_filter import ranked


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(40, 53), (4, 60), (1, 1)])
@pytest.mark.parametrize("side", [3, 9, 15])
def test_ranks_are_those_of_scipy_also_in_images_smaller_than_the_window(rng, kind, shape, side):
    image = rng.integers(0, 30, shape).astype(kind)  # many equal values
    reach = np.arange(side) - side // 2
    disk = np.hypot(reach[:, None], reach) <= side / 2
    median = ranked(image, disk, rank=np.count_nonzero(disk) // 2, beyond="symmetric")
    np.testing.assert_array_equal(median, ndimage.median_filter(image, footprint=disk, mode="reflect"))
    darkest = ranked(image, np.ones((side, side), bool), rank=side**2 // 10, beyond="edge")
    np.testing.assert_array_equal(darkest, ndimage.percentile_filter(image, 10, size=side, mode="nearest"))
    assert median.dtype == darkest.dtype == kind
