"""A source is opened by one call in any layout, and each image's header is read once."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import tifffile

from cropset_source import write_cropset
from layout_sources import fields, write_images, write_table
from phenolens.core.errors import InputError
from phenolens.crops.check import check_source
from phenolens.crops.config import CropConfig
from phenolens.crops.make_crops import crops_of, make_crops
from phenolens.crops.source import open_source
from phenolens.screens.layouts import LAYOUTS
from phenolens.screens.screen import Selection

ALL = Selection(treatments="all")
CONFIG = CropConfig(crop_px=10, treatments="all")


@pytest.fixture
def source(tmp_path):
    """A screen of 12 fields in two channels, a cell in each."""
    source = write_table(write_images(tmp_path / "a screen"))
    rows = [f"{plate},{well},{site},1,20,25" for plate, well, site in fields()]
    names = "plate,well,site,ObjectNumber,Location_Center_Y,Location_Center_X"
    (source / "Nuclei.csv").write_text("\n".join([names, *rows]) + "\n")
    return source


@pytest.fixture
def opened(monkeypatch) -> Counter[str]:
    """How often each TIFF is opened from here on."""
    counts: Counter[str] = Counter()
    original = tifffile.TiffFile.__init__

    def counted(self, file, *args, **kwargs):
        counts[str(file)] += 1
        original(self, file, *args, **kwargs)

    monkeypatch.setattr(tifffile.TiffFile, "__init__", counted)
    return counts


def test_crop_opens_each_image_for_its_header_and_its_pixels_and_the_sampled_ones_for_the_centres(
    source, tmp_path, opened
):
    assert len(make_crops(source, tmp_path / "crops", layout="table", config=CONFIG)) == 12
    assert Counter(opened.values()) == {2: 4 * 2, 4: 8 * 2}  # of 8 fields twice more: centres and grey values


def test_check_opens_each_image_once_and_the_sampled_ones_once_more(source, opened):
    check_source(source, layout="table", sample=2)
    assert Counter(opened.values()) == {1: 10 * 2, 2: 2 * 2}


def test_a_finished_crop_set_and_a_screen_are_opened_by_the_same_call(source, tmp_path):
    screen = open_source(source, layout="table", selection=ALL)
    assert screen.field_px == (40, 50)
    assert len(screen.cells) == 12
    (tmp_path / "set").mkdir()
    crops = open_source(write_cropset(tmp_path / "set"), layout="cropset")
    assert crops.field_px is None
    read, as_given = crops.read(crops.cells.iloc[:1], None)
    assert read.shape[:2] == (1, 3)
    np.testing.assert_array_equal(read, as_given)


def test_the_crops_of_an_opened_source_are_those_of_the_command(source, tmp_path):
    opened = open_source(source, layout="table", selection=CONFIG.selection())
    by_hand = crops_of(opened, tmp_path / "by hand", config=CONFIG)
    np.testing.assert_array_equal(
        by_hand.take(range(12)), make_crops(source, tmp_path / "crops", layout="table", config=CONFIG).take(range(12))
    )
    assert by_hand.take([0])[0, 0, 5, 5] == tifffile.imread(source / opened.screen.table["file_DNA"][0])[20, 25]


def test_a_channel_of_two_pixel_types_is_refused_before_any_work_and_two_channels_may_differ(source, tmp_path):
    paths = sorted(source.glob("*/*_wactin.tif"))
    eight_bits = [(path, (tifffile.imread(path) // 16).astype(np.uint8)) for path in paths]
    tifffile.imwrite(*eight_bits[3])
    for refused in (check_source, lambda source, layout: make_crops(source, tmp_path / "no", layout=layout)):
        with pytest.raises(InputError, match=r'channel "actin" is uint(8|16), .* pixel type in channel "actin"'):
            refused(source, layout="table")
    assert not (tmp_path / "no").exists()
    for path, pixels in eight_bits:
        tifffile.imwrite(path, pixels)
    assert "uint16, uint8;" in dict(check_source(source, layout="table").there)["images"]
    assert len(make_crops(source, tmp_path / "crops", layout="table", config=CONFIG)) == 12


def test_an_unknown_layout_is_refused_with_the_known_ones(source):
    with pytest.raises(InputError) as error:
        open_source(source, layout="zarr")
    assert all(name in str(error.value) for name in ["zarr", *LAYOUTS])


def test_a_centre_outside_its_field_is_named(source):
    table = (source / "Nuclei.csv").read_text()
    (source / "Nuclei.csv").write_text(table.replace("007,B02,1,1,20,25", "007,B02,1,1,20,50"))
    with pytest.raises(InputError, match=r'plate "007", well "B02", site 1, object 1: centre y 20, x 50'):
        open_source(source, layout="table", selection=replace(ALL, plates=("007",)))
