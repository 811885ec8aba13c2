"""Grey values that do not begin near 0 are refused before any crop is made, or the given black level is subtracted."""

import numpy as np
import pytest
import tifffile

from layout_sources import fields, pixels, write_images, write_table
from phenolens.core.errors import InputError
from phenolens.crops.check import check_source
from phenolens.crops.config import CropConfig
from phenolens.crops.make_crops import make_crops
from phenolens.screens.config import LayoutConfig
from phenolens.screens.read_image import read_field

CONFIG = CropConfig(crop_px=12, treatments="all", nucleus_px=8, cells="found")


def write_raised(folder, change, *, n=None):
    """The usual screen, the grey values of whose first n fields are changed."""
    source = write_table(write_images(folder / "source"))
    for plate, well, site in fields()[:n]:
        for channel in ("DNA", "actin"):
            image = change(pixels(plate, well, site, channel))
            tifffile.imwrite(source / plate / f"{well}_s{site}_w{channel}.tif", image)
    return source


RAISED = {
    "signed numbers stored with an offset": lambda image: image + 32_768,
    "12 bits inverted": lambda image: 65_535 - image,
    "a raised black level": lambda image: image + 5_000,
    "8 bits": lambda image: (image // 64 + 128).astype(np.uint8),
}


@pytest.mark.parametrize("kind", RAISED)
def test_raised_grey_values_are_refused_by_check_and_crop(tmp_path, kind):
    source = write_raised(tmp_path, RAISED[kind])
    for use in (
        lambda: check_source(source, layout="table"),
        lambda: make_crops(source, tmp_path / "crops", layout="table", config=CONFIG),
    ):
        with pytest.raises(InputError) as error:
            use()
        assert all(key in str(error.value) for key in ('channel "DNA"', "007", "8 of 8 fields", "--black-level"))
    assert not (tmp_path / "crops").exists()


def test_a_black_level_is_subtracted_in_every_image(tmp_path):
    source = write_raised(tmp_path, lambda image: image + 32_768)
    config = LayoutConfig(black_level=32_768)
    screen = check_source(source, layout="table", config=config).screen
    for _, row in screen.table.iterrows():
        field = read_field(screen.files(row), where="here")
        np.testing.assert_array_equal(field[0], pixels(row["plate"], row["well"], row["site"], "DNA"))
    as_they_are = check_source(source, layout="table", config=LayoutConfig(black_level=0)).screen
    assert read_field(as_they_are.files(as_they_are.table.iloc[0]), where="here").min() > 32_768


def test_check_says_the_darkest_and_the_brightest_value(tmp_path):
    source = write_raised(tmp_path, lambda image: image + 32_768, n=1)
    found = dict(check_source(source, layout="table").there)["images"]
    assert "are below 112 " in found
