"""Screens read from the index that an instrument writes: Harmony, CellVoyager and MetaXpress."""

import numpy as np
import pandas as pd
import pytest
import tifffile

from layout_sources import read_screen
from phenolens.core.errors import InputError
from phenolens.screens.config import LayoutConfig
from phenolens.screens.read_image import read_field

WELLS = {"B02": (2, 2), "B03": (2, 3), "C11": (3, 11)}
FIELDS = [(well, site, channel) for well in WELLS for site in (1, 2) for channel in (1, 2)]
NAMES = ("HOECHST 33342", "Alexa 488")


def grey(k: int) -> np.ndarray:
    return np.arange(32 * 40, dtype=np.uint16).reshape(32, 40) + k


def plate_map(folder) -> None:
    table = pd.DataFrame({"well": list(WELLS), "compound": ["DMSO", "taxol", "nocodazole"]})
    table.to_csv(folder / "plate_map.csv", index=False)


def save(path, k: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, grey(k))


def write_harmony(folder, *, version=5, plate="P1", at="P1__2021-08-14T15_29_30-Measurement 1", extra="") -> None:
    images = []
    for k, (well, site, channel) in enumerate(FIELDS):
        row, column = WELLS[well]
        name = f"r{row:02d}c{column:02d}f{site:02d}p01-ch{channel}sk1fk1fl1.tiff"
        save(folder / at / "Images" / name, k)
        of_channel = f"<ChannelName>{NAMES[channel - 1]}</ChannelName>" if version == 5 else ""
        images.append(
            f"<Image Version='1'><id>{row:02d}{column:02d}K1F{site}P1R{channel}</id><State>Ok</State><URL>{name}</URL>"
            f"<Row>{row}</Row><Col>{column}</Col><FieldID>{site}</FieldID><PlaneID>1</PlaneID>"
            f"<TimepointID>0</TimepointID><ChannelID>{channel}</ChannelID>{of_channel}</Image>"
        )
    entries = "".join(
        f"<Entry ChannelID='{k}'><ChannelName>{name}</ChannelName></Entry>" for k, name in enumerate(NAMES, start=1)
    )
    maps = f"<Maps><Map>{entries}</Map></Maps>" if version > 5 else ""
    (folder / at / "Images" / ("Index.idx.xml" if version == 5 else "Index.xml")).write_text(
        f"<?xml version='1.0' encoding='utf-8'?><EvaluationInputData xmlns='http://www.perkinelmer.com/PEHH/HarmonyV{version}'>"
        f"<Plates><Plate><PlateID>{plate}</PlateID><Name>{plate}</Name><Well id='0202'/></Plate></Plates>"
        f"<Wells><Well><id>0202</id><Row>2</Row><Col>2</Col><Image id='0202K1F1P1R1'/></Well></Wells>{maps}"
        f"<Images>{''.join(images)}{extra}</Images></EvaluationInputData>"
    )
    plate_map(folder)


BTS = "xmlns:bts='http://www.yokogawa.co.jp/BTS/BTSSchema/1.0'"


def write_cellvoyager(folder, *, names=True) -> None:
    records = ["<bts:MeasurementRecord bts:Type='ERR' bts:Column='1' bts:Row='1'>no image</bts:MeasurementRecord>"]
    for k, (well, site, channel) in enumerate(FIELDS):
        row, column = WELLS[well]
        name = f"x_{well}_T0001F{site:03d}L01A01Z01C{channel:02d}.tif"
        save(folder / "P1" / name, k)
        records.append(
            f"<bts:MeasurementRecord bts:Time='2021-06-14' bts:Column='{column}' bts:Row='{row}' bts:TimePoint='1' "
            f"bts:FieldIndex='{site}' bts:ZIndex='1' bts:ActionIndex='1' bts:X='1' bts:Ch='{channel}' "
            f"bts:Type='IMG'>{name}</bts:MeasurementRecord>"
        )
    inside = folder / "P1"
    (inside / "MeasurementData.mlf").write_text(
        f"<?xml version='1.0' encoding='utf-8'?><bts:MeasurementData {BTS}>{''.join(records)}</bts:MeasurementData>"
    )
    (inside / "MeasurementDetail.mrf").write_text(
        f"<bts:MeasurementDetail {BTS} bts:Title='Screen of June' bts:RowCount='16'/>"
    )
    if names:
        channels = "".join(f"<bts:Channel bts:Ch='{k}' bts:Target='{name}'/>" for k, name in enumerate(NAMES, start=1))
        (inside / "a.mes").write_text(
            f"<bts:MeasurementSetting {BTS}><bts:ChannelList>{channels}</bts:ChannelList></bts:MeasurementSetting>"
        )
    plate_map(folder)


def write_metaxpress(folder, *, named=WELLS, n_waves=2) -> None:
    for k, (well, site, channel) in enumerate(FIELDS):
        save(folder / "P1" / "TimePoint_1" / f"Exp_{well}_s{site}_w{channel}1A2B3C4D-0000-4000-8000-{k:012X}.TIF", k)
        (folder / "P1" / "TimePoint_1" / f"Exp_{well}_s{site}_w{channel}_thumb1A2B.tif").touch()
    lines = ['"HTSInfoFile", Version 1.0', '"Description", "a, b"', '"TimePoints", 1', '"XWells", 12', '"YWells", 8']
    for row in range(1, 9):
        chosen = [str((row, column) in named.values()).upper() for column in range(1, 13)]
        lines.append(f'"WellsSelection{row}", {", ".join(chosen)}')
    lines += ['"XSites", 2', '"YSites", 1', '"SiteSelection1", TRUE, TRUE', f'"NWavelengths", {n_waves}']
    lines += [f'"WaveName{k}", "{name}"' for k, name in enumerate(NAMES, start=1)] + ['"EndFile"']
    (folder / "P1" / "Exp.HTD").write_text("\r\n".join(lines))
    plate_map(folder)


WRITERS = {
    "harmony 5": lambda folder: write_harmony(folder),
    "harmony 7": lambda folder: write_harmony(folder, version=7),
    "cellvoyager": write_cellvoyager,
    "metaxpress": write_metaxpress,
}
PLATES = {"cellvoyager": "Screen of June"}


def read(folder, *, skip_missing=False, **config):
    chosen = LayoutConfig(**config)
    return read_screen(folder, layout="index", config=chosen, treatments="all", skip_missing=skip_missing)


def refusal(folder, **config) -> str:
    with pytest.raises(InputError) as error:
        read(folder, **config)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("kind", WRITERS)
def test_an_index_names_plates_wells_sites_and_channels(tmp_path, kind):
    WRITERS[kind](tmp_path)
    screen = read(tmp_path, channels=NAMES)
    expected = [[PLATES.get(kind, "P1"), well, site] for well in WELLS for site in (1, 2)]
    assert screen.table[["plate", "well", "site"]].to_numpy().tolist() == expected
    for row in range(len(expected)):
        pixels = read_field(screen.files(screen.table.iloc[row]), where="here")
        np.testing.assert_array_equal(pixels, [grey(2 * row), grey(2 * row + 1)])


@pytest.mark.parametrize("kind", WRITERS)
def test_an_image_that_the_index_names_and_that_is_not_there_is_named_or_counted(tmp_path, kind):
    WRITERS[kind](tmp_path)
    for file in [path for path in tmp_path.rglob("*") if "B03" in path.name or "r02c03f" in path.name]:
        if "f02" in file.name or "F002" in file.name or "_s2_" in file.name:
            file.unlink()
    assert "B03" in refusal(tmp_path)
    screen = read(tmp_path, skip_missing=True)
    assert len(screen.table) == 5
    assert sum(screen.left_out.values()) >= 1


def test_wells_of_metaxpress_that_differ_from_the_images_are_counted_and_named(tmp_path):
    write_metaxpress(tmp_path, named={"B02": (2, 2), "C11": (3, 11), "D01": (4, 1), "D02": (4, 2)}, n_waves=3)
    line = refusal(tmp_path)
    assert [key for key in ("P1/Exp.HTD", "4 such fields", "D01, D02", "--skip-missing") if key not in line] == []
    screen = read(tmp_path, skip_missing=True)
    assert set(screen.table["well"]) == set(WELLS)
    notes = "\n".join(screen.notes)
    keys = (
        "4 fields without an image, in D01, D02",
        "does not name 1 well with images, taken too: B03",
        "3 wavelengths",
    )
    assert [key for key in keys if key not in notes] == []


def test_an_index_without_images_beside_another_is_named(tmp_path):
    write_metaxpress(tmp_path)
    (tmp_path / "P2").mkdir()
    (tmp_path / "P2" / "Other.HTD").write_text((tmp_path / "P1" / "Exp.HTD").read_text())
    assert any(note.startswith("P2/Other.HTD: none of the images") for note in read(tmp_path).notes)


def test_two_measurements_of_one_plate_name_have_the_names_of_their_folders(tmp_path):
    write_harmony(tmp_path, at="A__2021-08-14T15_29_30-Measurement 1")
    write_harmony(tmp_path, at="B__2021-08-15T15_29_30-Measurement 1")
    assert set(read(tmp_path).table["plate"]) == {"A", "B"}


def test_failed_images_and_images_of_no_index_are_counted(tmp_path):
    failed = "<Image><State>Failed</State><URL>x.tiff</URL><Row>2</Row><Col>2</Col><FieldID>1</FieldID></Image>"
    write_harmony(tmp_path, extra=failed)
    save(tmp_path / "P1__2021-08-14T15_29_30-Measurement 1" / "Images" / "other.tiff", 1)
    counts = read(tmp_path).left_out
    assert counts["images that the instrument marks as failed"] == 1
    assert counts["images that no index names"] == 1


def test_images_that_are_pages_of_a_file_are_read_by_their_buffer(tmp_path):
    write_harmony(tmp_path)
    folder = tmp_path / "P1__2021-08-14T15_29_30-Measurement 1" / "Images"
    with tifffile.TiffWriter(folder / "all.tiff") as file:
        for k in range(len(FIELDS)):
            file.write(grey(100 + k), contiguous=False)
    text = (folder / "Index.idx.xml").read_text()
    for k, (well, site, channel) in enumerate(FIELDS):
        row, column = WELLS[well]
        name = f"r{row:02d}c{column:02d}f{site:02d}p01-ch{channel}sk1fk1fl1.tiff"
        text = text.replace(f"<URL>{name}</URL>", f"<URL BufferNo='{k}'>all.tiff</URL>")
    (folder / "Index.idx.xml").write_text(text)
    screen = read(tmp_path, channels=NAMES)
    pixels = read_field(screen.files(screen.table.iloc[3]), where="here")
    np.testing.assert_array_equal(pixels, [grey(106), grey(107)])


def test_channels_without_names_keep_their_numbers(tmp_path):
    write_cellvoyager(tmp_path, names=False)
    assert read(tmp_path).channels == ("1", "2")


def test_planes_and_time_points_of_an_index_are_asked_for(tmp_path):
    write_cellvoyager(tmp_path)
    index = tmp_path / "P1" / "MeasurementData.mlf"
    text = index.read_text()
    save(tmp_path / "P1" / "z2.tif", 700)
    more = text[text.index("<bts:MeasurementRecord bts:Time") :].split("</bts:MeasurementRecord>")[0]
    more = more.replace("ZIndex='1'", "ZIndex='2'").rsplit(">", 1)[0] + ">z2.tif</bts:MeasurementRecord>"
    index.write_text(text.replace("</bts:MeasurementData>", f"{more}</bts:MeasurementData>"))
    assert "--z" in refusal(tmp_path)
    screen = read(tmp_path, z="max", channels=NAMES)
    np.testing.assert_array_equal(read_field(screen.files(screen.table.iloc[0]), where="here")[0], grey(700))


@pytest.mark.parametrize(("name", "text"), [("Index.idx.xml", "<a><b>"), ("a.HTD", '"x", 1'), ("b.txt", "")])
def test_a_damaged_index_or_none_is_refused(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert "index" in refusal(tmp_path).lower() or name in refusal(tmp_path)
