import numpy as np
import pytest
import tifffile

from phenolens.core.errors import InputError
from phenolens.screens.read_image import open_plane, read_field

WHERE = 'plate "Week1_22123", well "B02", site 3'


@pytest.fixture
def paths(tmp_path, rng):
    paths = {name: tmp_path / f"{name}.tif" for name in ("DNA", "tubulin", "actin")}
    for path in paths.values():
        tifffile.imwrite(path, rng.integers(0, 65_536, (30, 40), dtype=np.uint16))
    return paths


def refusal(paths) -> str:
    with pytest.raises(InputError) as error:
        read_field(paths, where=WHERE)
    line = str(error.value)
    assert line.startswith(WHERE)
    assert "\n" not in line
    return line


def test_channels_come_in_the_order_asked_bit_for_bit(paths):
    asked = {name: paths[name] for name in ("actin", "DNA")}
    field = read_field(asked, where=WHERE)
    assert field.dtype == np.uint16
    np.testing.assert_array_equal(field[0], tifffile.imread(paths["actin"]))
    np.testing.assert_array_equal(field[1], tifffile.imread(paths["DNA"]))


@pytest.mark.parametrize("compression", ["zlib", "lzw"])
def test_compressed_fields_are_read(paths, compression):
    picture = tifffile.imread(paths["DNA"])
    tifffile.imwrite(paths["DNA"], picture, compression=compression)
    np.testing.assert_array_equal(read_field(paths, where=WHERE)[0], picture)


def test_eight_bit_values_are_taken_as_they_are(paths):
    picture = np.arange(200, dtype=np.uint8).reshape(10, 20)
    tifffile.imwrite(paths["DNA"], picture)
    np.testing.assert_array_equal(read_field({"DNA": paths["DNA"]}, where=WHERE), picture[np.newaxis])


def test_the_size_is_height_then_width(paths):
    with open_plane(paths["DNA"], named=WHERE) as plane:
        assert plane.header.shape == (30, 40)


def test_the_real_field_is_read(real_data):
    folder = real_data / "bbbc021" / "fields" / "Week2_24381"
    paths = {channel: next(folder.glob(f"*_B02_s2_w{channel}*")) for channel in "124"}
    field = read_field(paths, where=WHERE)
    assert field.shape == (3, 1024, 1280)
    assert field.max(axis=(1, 2)).tolist() == [11_232, 22_592, 28_848]


def test_a_missing_file_is_named_with_its_channel(paths):
    paths["tubulin"].unlink()
    assert refusal(paths) == (
        f'{WHERE}: channel "tubulin" has no file (expected {paths["tubulin"]}); add it, or run with --skip-missing'
    )


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("kept_share", [0.0, 0.02, 0.3, 0.9, 0.999])
def test_a_file_cut_anywhere_is_refused(paths, compression, kept_share):
    tifffile.imwrite(paths["actin"], tifffile.imread(paths["actin"]), compression=compression)
    whole = paths["actin"].read_bytes()
    paths["actin"].write_bytes(whole[: int(kept_share * len(whole))])
    assert 'channel "actin" ' in refusal(paths)
    assert "actin.tif" in refusal(paths)


def test_how_much_is_missing_is_told(paths):
    paths["actin"].write_bytes(paths["actin"].read_bytes()[:-100])
    n_bytes = paths["actin"].stat().st_size
    assert f"is truncated ({paths['actin']} has {n_bytes:,} of {n_bytes + 100:,} bytes)" in refusal(paths)


def test_a_foreign_file_is_refused(paths):
    paths["DNA"].write_text("not a picture at all")
    assert 'channel "DNA" is not a complete TIFF' in refusal(paths)


def test_damaged_compressed_pixels_are_refused(paths):
    tifffile.imwrite(paths["DNA"], tifffile.imread(paths["DNA"]), compression="zlib")
    with tifffile.TiffFile(paths["DNA"]) as tiff:
        start = tiff.pages.first.dataoffsets[0]
    content = bytearray(paths["DNA"].read_bytes())
    content[start : start + 50] = bytes(50)
    paths["DNA"].write_bytes(content)
    assert 'channel "DNA" cannot be decoded' in refusal(paths)


def test_channels_of_unequal_size_are_refused(paths):
    tifffile.imwrite(paths["actin"], np.zeros((30, 41), np.uint16))
    assert 'channel "actin" is 30 x 41 px but channel "DNA" is 30 x 40 px' in refusal(paths)


@pytest.mark.parametrize("pixel_type", [np.float32, np.int16, np.uint32])
def test_other_pixel_types_are_refused(paths, pixel_type):
    tifffile.imwrite(paths["actin"], np.zeros((30, 40), pixel_type))
    assert f'channel "actin" has pixels of type {np.dtype(pixel_type)}' in refusal(paths)


def test_colour_pictures_and_stacks_are_refused(paths):
    tifffile.imwrite(paths["DNA"], np.zeros((30, 40, 3), np.uint8), photometric="rgb")
    assert "holds an image of shape 30 x 40 x 3" in refusal(paths)
    tifffile.imwrite(paths["DNA"], np.zeros((5, 30, 40), np.uint16))
    assert "holds 5 images" in refusal(paths)
