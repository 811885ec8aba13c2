"""One grey image out of a file of any kind: what is read is what was written, what is unclear is refused."""

import struct

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr

from phenolens.core.errors import InputError
from phenolens.crops.quality_measures import detector_maximum
from phenolens.screens.image_reference import ImageReference, file_on_disk, image_reference
from phenolens.screens.read_image import open_plane, read_field

WHERE = 'plate "p", well "B02", site 1'


def size_of(path) -> tuple[int, int]:
    """Height and width by the header."""
    with open_plane(path, named=WHERE) as plane:
        return plane.header.shape


@pytest.fixture
def picture(rng):
    return rng.integers(0, 4096, (30, 40), dtype=np.uint16)


def read(path) -> np.ndarray:
    return read_field({"DNA": path}, where=WHERE)[0]


def refusal(path) -> str:
    with pytest.raises(InputError) as error:
        read(path)
    line = str(error.value)
    assert line.startswith(f'{WHERE}: channel "DNA"')
    assert "\n" not in line
    return line


def test_a_reference_says_file_and_choice_and_reads_back_as_it_was_written():
    for text in ("a/b.tif", "a/b.tif#page=2", "a/p.zarr/B/2/0#channel=DAPI&z=3", "a/50#1.tif", "a/b#page=.tif"):
        assert str(image_reference(text)) == text
    assert image_reference("a/50#1.tif").choice == {}  # a # alone is a letter of the name
    assert file_on_disk("a/50#1.tif#page=2").as_posix() == "a/50#1.tif"
    awkward = ImageReference(image_reference("a.tif").file, {"channel": "50% A&B #2/x"})
    assert image_reference(str(awkward)) == awkward


@pytest.mark.parametrize("compression", ["packbits", "lzw", "zlib", None])
def test_every_common_compression_gives_the_same_pixels(tmp_path, picture, compression):
    tifffile.imwrite(tmp_path / "a.tif", picture, compression=compression)
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), picture)


def test_twelve_packed_bits_are_unpacked(tmp_path, picture):
    a, b = picture[:, ::2].astype(int), picture[:, 1::2].astype(int)  # two pixels in three bytes, highest bits first
    packed = np.stack([a >> 4, (a & 15) << 4 | b >> 8, b & 255], axis=-1).astype(np.uint8).tobytes()
    tags = [(256, 4, 40), (257, 4, 30), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 200), (278, 4, 30)]
    tags.append((279, 4, len(packed)))
    entries = b"".join(
        struct.pack("<HHI", tag, kind, 1) + struct.pack("<I", value) for tag, kind, value in tags
    )  # a SHORT lies in the first two bytes of its four
    header = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    (tmp_path / "a.tif").write_bytes(header.ljust(200, b"\0") + packed)
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), picture)
    with open_plane(tmp_path / "a.tif", named=WHERE) as plane:
        assert (plane.header.bits, plane.header.shape) == (12, (30, 40))


def test_a_page_a_channel_is_chosen_by_its_number_from_one(tmp_path, picture):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for page in range(3):
            file.write(picture + page, contiguous=False)
    np.testing.assert_array_equal(read(f"{tmp_path}/a.tif#page=2"), picture + 1)
    assert size_of(f"{tmp_path}/a.tif#page=2") == (30, 40)
    assert "holds 3 images" in refusal(tmp_path / "a.tif")
    assert 'page "4"' in refusal(f"{tmp_path}/a.tif#page=4")
    assert 'page "0"' in refusal(f"{tmp_path}/a.tif#page=0")


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_a_colour_is_chosen_by_its_name(tmp_path, rng, planar):
    shape = (30, 40, 3) if planar == "contig" else (3, 30, 40)
    colours = rng.integers(0, 256, shape, dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", colours, photometric="rgb", planarconfig=planar)
    green = colours[..., 1] if planar == "contig" else colours[1]
    np.testing.assert_array_equal(read(f"{tmp_path}/a.tif#channel=green"), green)
    np.testing.assert_array_equal(read(f"{tmp_path}/a.tif#channel=2"), green)
    assert "in colour" in refusal(tmp_path / "a.tif")
    assert "#channel=red, #channel=green or #channel=blue" in refusal(tmp_path / "a.tif")
    assert 'channel "violet"' in refusal(f"{tmp_path}/a.tif#channel=violet")


def test_an_ome_tiffs_channel_is_chosen_by_its_name_whatever_the_order_of_axes(tmp_path, rng):
    stack = rng.integers(0, 65_536, (2, 3, 30, 40), dtype=np.uint16)  # z, channel
    names = {"Channel": {"Name": ["DAPI", "GFP", "actin"]}}
    tifffile.imwrite(tmp_path / "a.ome.tif", stack, metadata={"axes": "ZCYX", **names}, photometric="minisblack")
    np.testing.assert_array_equal(read(f"{tmp_path}/a.ome.tif#channel=GFP&z=2"), stack[1, 1])
    np.testing.assert_array_equal(read(f"{tmp_path}/a.ome.tif#channel=3&z=1"), stack[0, 2])
    assert "is one of 2 along z" in refusal(f"{tmp_path}/a.ome.tif#channel=GFP")
    assert "its channels are DAPI, GFP, actin" in refusal(f"{tmp_path}/a.ome.tif#channel=DNA&z=1")


def test_an_imagej_stack_is_read_though_it_has_one_page_for_all(tmp_path, rng):
    stack = rng.integers(0, 65_536, (3, 30, 40), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, metadata={"axes": "CYX"})
    np.testing.assert_array_equal(read(f"{tmp_path}/a.tif#channel=3"), stack[2])


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_png_is_read_bit_for_bit(tmp_path, rng, kind):
    grey = rng.integers(0, np.iinfo(kind).max + 1, (30, 40), dtype=kind)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(grey))
    np.testing.assert_array_equal(read(tmp_path / "a.png"), grey)
    assert size_of(tmp_path / "a.png") == (30, 40)
    colours = rng.integers(0, np.iinfo(kind).max + 1, (30, 40, 3), dtype=kind)
    (tmp_path / "b.png").write_bytes(imagecodecs.png_encode(colours))
    np.testing.assert_array_equal(read(f"{tmp_path}/b.png#channel=blue"), colours[..., 2])
    assert "in colour" in refusal(tmp_path / "b.png")


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_an_ome_zarr_channel_is_read_by_name_or_number(tmp_path, rng, zarr_format):
    stack = rng.integers(0, 65_536, (1, 2, 1, 30, 40), dtype=np.uint16)
    write_ome_zarr(tmp_path / "a.zarr", stack, ["DNA", "actin"], zarr_format=zarr_format)
    np.testing.assert_array_equal(read(f"{tmp_path}/a.zarr#channel=actin"), stack[0, 1, 0])
    np.testing.assert_array_equal(read(f"{tmp_path}/a.zarr#channel=1"), stack[0, 0, 0])
    assert size_of(f"{tmp_path}/a.zarr#channel=1") == (30, 40)
    assert "choose a plane after its name" in refusal(tmp_path / "a.zarr")
    assert "its channels are DNA, actin" in refusal(f"{tmp_path}/a.zarr#channel=tubulin")


def test_an_ome_zarr_without_its_pixels_is_refused(tmp_path, picture):
    group = write_ome_zarr(tmp_path / "a.zarr", picture[None, None, None], ["DNA"])
    del group["0"]
    assert "has no pixels at level 0" in refusal(f"{tmp_path}/a.zarr#channel=DNA")
    assert "has no image (expected the folder" in refusal(f"{tmp_path}/b.zarr#channel=DNA")


def write_ome_zarr(folder, stack, names, *, zarr_format=2):
    """An OME-Zarr image with the axes t, c, z, y, x."""
    group = zarr.open_group(folder, mode="w", zarr_format=zarr_format)
    group.create_array("0", data=stack, chunks=(1, 1, 1, *stack.shape[-2:]))
    axes = [{"name": name} for name in "tczyx"]
    ome = {"multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]}
    ome["omero"] = {"channels": [{"label": name} for name in names]}
    group.attrs.update({"ome": ome} if zarr_format == 3 else ome)
    return group


def test_the_real_kinds_are_read_and_their_full_scale_is_known(real_data):
    """8 bits; 8 bits stretched to 16; 16 bits; 12 bits x 16; 12 bits in an OME-Zarr."""
    formats, plate = real_data / "formats", real_data / "bbbc021" / "fields" / "Week2_24381"
    zarr_image = formats / "ome_zarr_v3" / "6001240_labels_v0.5.zarr"
    real = {
        255: formats / "cellprofiler_example_human" / "AS_09125_050116030001_D03f00d0.tif",
        65_535: formats / "nf1_cell_painting" / "Plate_2_images" / "B7_01_1_3_DAPI_001.tif",
        65_520: next(plate.glob("*_B02_s2_w1*")),
        4_095: f"{zarr_image}#channel=Dapi&z=118",
    }
    assert {scale: detector_maximum([read(path)]) for scale, path in real.items()} == {scale: scale for scale in real}
    beads = [read(path) for path in (formats / "imagexpress").glob("*E08*") if "_thumb" not in path.name]
    assert detector_maximum(beads) == 65_535


def test_full_scale_follows_from_the_values(rng):
    twelve = rng.integers(0, 4096, (3, 50, 50), dtype=np.uint16)
    assert detector_maximum([twelve]) == 4095
    assert detector_maximum([twelve * 16]) == 65_520
    assert detector_maximum([(twelve // 16).astype(np.uint8)]) == 255
    assert detector_maximum([twelve // 16 * 257]) == 65_535
    assert detector_maximum([twelve, twelve * 15]) == 65_535
    assert detector_maximum([twelve // 4]) == 1023
    assert detector_maximum([twelve], bits=14) == 16_383
    assert detector_maximum([np.full((5, 5), 4096, np.uint16)]) == 16_383  # no detector has steps of 4,096


def test_files_that_are_not_what_their_name_says_are_refused_in_one_line(tmp_path, picture):
    png = imagecodecs.png_encode(picture)
    (tmp_path / "png.tif").write_bytes(png)
    assert "is a PNG file" in refusal(tmp_path / "png.tif")
    (tmp_path / "empty.tif").touch()
    assert "the file is empty, 0 bytes" in refusal(tmp_path / "empty.tif")
    tifffile.imwrite(tmp_path / "tiff.png", picture)
    assert "is a TIFF file" in refusal(tmp_path / "tiff.png")
    (tmp_path / "cut.png").write_bytes(png[: len(png) // 2])
    assert "is truncated" in refusal(tmp_path / "cut.png")
    (tmp_path / "damaged.png").write_bytes(png[:100] + bytes(50) + png[150:])
    assert "cannot be decoded" in refusal(tmp_path / "damaged.png")
    assert "has no file" in refusal(tmp_path / "absent.png")
    (tmp_path / "folder.tif").mkdir()
    assert "cannot be opened" in refusal(tmp_path / "folder.tif")
    assert "File name too long" in refusal(tmp_path / f"{'a' * 300}.tif")


def test_palette_colours_are_no_brightness(tmp_path):
    colours = np.zeros((3, 256), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((5, 5), np.uint8), photometric="palette", colormap=colours)
    assert "in palette colours" in refusal(tmp_path / "a.tif")


def test_names_with_accents_and_spaces_are_names(tmp_path, picture):
    path = tmp_path / "Zelle é 细胞 #3.tif"
    tifffile.imwrite(path, picture)
    np.testing.assert_array_equal(read(path), picture)


def test_white_is_zero_is_inverted_within_the_bits_of_the_file(tmp_path, picture):
    tifffile.imwrite(tmp_path / "a.tif", 65_535 - picture, photometric="miniswhite")
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), picture)
    small = (picture // 16).astype(np.uint8)
    tifffile.imwrite(tmp_path / "b.tif", 255 - small, photometric="miniswhite")
    np.testing.assert_array_equal(read(tmp_path / "b.tif"), small)


@pytest.mark.parametrize("photometric", ["palette", "separated", "cielab", "cfa"])
def test_values_that_a_tag_gives_another_meaning_are_refused_by_its_name(tmp_path, rng, photometric):
    shape = {"separated": (30, 40, 4), "cielab": (30, 40, 3)}.get(photometric, (30, 40))
    image = rng.integers(0, 256, shape, dtype=np.uint8)
    more = {"colormap": rng.integers(0, 65_536, (3, 256), dtype=np.uint16)} if photometric == "palette" else {}
    tifffile.imwrite(tmp_path / "a.tif", image, photometric=photometric, **more)
    choice = "#channel=1" if len(shape) == 3 else ""
    assert photometric in refusal(f"{tmp_path}/a.tif{choice}").lower()


def test_a_calibration_of_imagej_is_refused(tmp_path, picture):
    tifffile.imwrite(tmp_path / "a.tif", picture, imagej=True, metadata={"cf": 0, "c0": -32768.0, "c1": 1.0})
    assert "ImageJ" in refusal(tmp_path / "a.tif")
    assert "-32768" in refusal(tmp_path / "a.tif")


@pytest.mark.parametrize("kind", [np.int16, np.int8, np.int32, np.uint32, np.float32, np.float64, np.complex64, bool])
def test_other_numbers_than_unsigned_8_or_16_bits_are_refused_by_their_type(tmp_path, kind):
    tifffile.imwrite(tmp_path / "a.tif", np.ones((30, 40), kind), photometric="minisblack")
    assert np.dtype(kind).name in refusal(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("first", "name"),
    [
        (b"\xff\xd8\xff\xe0", "JPEG"),
        (b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
        (b"GIF89a", "GIF"),
        (b"ZISRAWFILE", "CZI"),
        (b"\x89HDF\r\n", "HDF5"),
    ],
)
@pytest.mark.parametrize("ending", ["tif", "png", "jpg"])
def test_files_of_other_kinds_are_refused_by_their_kind(tmp_path, first, name, ending):
    (tmp_path / f"a.{ending}").write_bytes(first.ljust(200, b"\x01"))
    assert f"is a {name}" in refusal(tmp_path / f"a.{ending}") or f"is an {name}" in refusal(tmp_path / f"a.{ending}")


def test_a_choice_that_the_file_does_not_have_is_refused(tmp_path, picture, rng):
    tifffile.imwrite(tmp_path / "a.tif", picture)
    (tmp_path / "b.png").write_bytes(imagecodecs.png_encode(picture))
    for name in ("a.tif", "b.png"):
        for axis in ("page", "channel", "z", "t"):
            assert f'{axis} "2"' in refusal(f"{tmp_path}/{name}#{axis}=2")
            np.testing.assert_array_equal(read(f"{tmp_path}/{name}#{axis}=1"), picture)
    stack = rng.integers(0, 65_536, (2, 30, 40), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "c.ome.tif", stack, metadata={"axes": "CYX"}, photometric="minisblack")
    assert 'z "2"' in refusal(f"{tmp_path}/c.ome.tif#channel=1&z=2")


def test_pages_without_a_meaning_are_channels(tmp_path, rng):
    stack = rng.integers(0, 65_536, (2, 30, 40), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack")
    np.testing.assert_array_equal(read(f"{tmp_path}/a.tif#channel=2"), stack[1])


def write_stack(folder, stack, kind) -> str:
    """A stack (z, H, W) in one file, in files of its planes or in an OME-Zarr image; its name before the choice."""
    if kind == "files":
        for z, plane in enumerate(stack):
            tifffile.imwrite(folder / f"z{z}.tif", plane)
        return f"{folder}/z0.tif#with=z1.tif|z2.tif&"
    if kind == "zarr":
        group = zarr.open_group(folder / "a.zarr", mode="w", zarr_format=2)
        group.create_array("0", data=stack, chunks=(1, 30, 40))
        axes = [{"name": name} for name in "zyx"]
        group.attrs["multiscales"] = [{"axes": axes, "datasets": [{"path": "0"}]}]
        return f"{folder}/a.zarr#"
    how = {"imagej": {"imagej": True}, "ome": {}}[kind]
    tifffile.imwrite(
        folder / f"a.{'ome.' * (kind == 'ome')}tif", stack, metadata={"axes": "ZYX"}, photometric="minisblack", **how
    )
    return f"{folder}/a.{'ome.' * (kind == 'ome')}tif#"


@pytest.mark.parametrize("kind", ["files", "zarr", "imagej", "ome"])
def test_a_stack_is_projected_or_gives_its_brightest_plane(tmp_path, rng, kind):
    stack = rng.integers(0, 1000, (3, 30, 40), dtype=np.uint16)
    stack[1] += 200
    name = write_stack(tmp_path, stack, kind)
    np.testing.assert_array_equal(read(f"{name}z=max"), stack.max(axis=0))
    np.testing.assert_array_equal(read(f"{name}z=brightest"), stack[1])
    np.testing.assert_array_equal(read(f"{name}z=max&black=150"), np.maximum(stack.max(axis=0), 150) - 150)


def test_a_black_level_is_subtracted_and_nothing_becomes_negative(tmp_path, picture):
    tifffile.imwrite(tmp_path / "a.tif", picture)
    np.testing.assert_array_equal(read(f"{tmp_path}/a.tif#black=300"), np.maximum(picture, 300) - 300)
