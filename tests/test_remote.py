"""Sources by address give what their local copies give; what a server refuses or loses is one line."""

import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import phenolens as ph
from layout_sources import fields, write_images, write_loaddata, write_plate_map, write_plates, write_table
from phenolens.core.errors import InputError
from phenolens.crops.config import CropConfig
from phenolens.crops.make_crops import make_crops
from phenolens.crops.source import open_source
from phenolens.screens import remote
from phenolens.screens.config import LayoutConfig
from phenolens.screens.image_states import fields_sha256
from phenolens.screens.read_image import read_field
from phenolens.screens.screen import Selection
from s3_server import BUCKET, failing, serving, use

PATTERN = "{plate}/{well}_s{site}_w{channel}.tif"


@pytest.fixture(scope="module")
def bucket():
    with pytest.MonkeyPatch.context() as monkeypatch, serving(monkeypatch) as served:
        yield served


@pytest.fixture
def public(tmp_path) -> LayoutConfig:
    return LayoutConfig(anonymous=True, cache=tmp_path / "cache", pattern=PATTERN)


def pattern_source(folder: Path) -> Path:
    return write_plate_map(write_images(folder))


def content(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "content").rglob("*") if path.is_file())


def test_checking_a_source_by_address_finds_what_its_copy_has(bucket, tmp_path, public):
    local = pattern_source(tmp_path / "local")
    address = bucket.upload(local, "screens/one")
    here = ph.check(local, layout="pattern", pattern=PATTERN, sample=2)
    there = ph.check(address, layout="pattern", sample=2, **settings(public))
    assert there.to_dict("records")[1:7] == here.to_dict("records")[1:7]
    assert address in there.attrs["next"]
    assert len(content(public.cache)) == 2 * 2  # of the fields whose pixels are read; the others from the listing


def settings(config: LayoutConfig) -> dict[str, object]:
    return {"pattern": config.pattern, "anonymous": config.anonymous, "cache": config.cache}


@pytest.mark.parametrize("write", [pattern_source, lambda folder: write_plate_map(write_plates(folder))])
def test_pixels_are_those_of_the_copy(bucket, tmp_path, public, write):
    local = write(tmp_path / "local")
    layout = "ome-zarr" if list(local.glob("*.zarr")) else "pattern"
    config = LayoutConfig(anonymous=True, cache=public.cache, pattern=PATTERN if layout == "pattern" else "")
    folder, config = remote.local_source(Path(bucket.upload(local, "screens/two")), config)
    ours, theirs = opened(folder, layout, config), opened(local, layout, LayoutConfig(pattern=config.pattern))
    assert ours.table.equals(theirs.table)
    for row in (0, len(fields()) - 1):
        read = [read_field(each.files(each.table.iloc[row]), where="here") for each in (ours, theirs)]
        np.testing.assert_array_equal(*read)


def opened(folder: Path, layout: str, config: LayoutConfig):
    return open_source(folder, layout=layout, config=config, selection=Selection("all")).screen


def test_a_web_server_that_lists_its_folders_is_a_source(tmp_path, public):
    pattern_source(tmp_path / "web" / "screen")
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path / "web")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        folder, config = remote.local_source(Path(f"http://127.0.0.1:{server.server_port}/screen"), public)
        screen = opened(folder, "pattern", config)
        pixels = read_field(screen.files(screen.table.iloc[0]), where="here")
        server.shutdown()
        thread.join()
    assert len(screen.table) == len(fields())
    assert pixels.shape == (2, 40, 50)


def test_a_table_here_may_name_images_there(bucket, tmp_path, public):
    bucket.upload(write_images(tmp_path / "images"), "images")
    tables = tmp_path / "tables"
    tables.mkdir()
    write_plate_map(write_loaddata(tables, path_name=f"s3://{BUCKET}/images"))
    config = LayoutConfig(anonymous=True, cache=public.cache)
    screen = opened(tables, "loaddata", config)
    assert len(screen.table) == len(fields())
    assert read_field(screen.files(screen.table.iloc[0]), where="here").shape == (2, 40, 50)


def test_files_that_change_are_read_again_and_those_that_go_are_gone(bucket, tmp_path, public):
    local = write_table(write_images(tmp_path / "local"))
    address = bucket.upload(local, "changing")
    folder, _ = remote.local_source(Path(address), public)
    image = folder / "007" / "B02_s1_wDNA.tif"
    first = remote.local_copy(image, named="here").read_bytes()
    (local / "007" / "B02_s1_wDNA.tif").write_bytes(first[::-1])
    (local / "007" / "B02_s2_wDNA.tif").unlink()
    bucket.delete("changing/007/B02_s2_wDNA.tif")
    bucket.upload(local, "changing")
    remote.local_source(Path(address), public)
    assert remote.local_copy(image, named="here").read_bytes() == first[::-1]
    assert not (folder / "007" / "B02_s2_wDNA.tif").exists()


def test_names_of_images_do_not_depend_on_where_source_and_cache_lie(bucket, tmp_path, public):
    address = bucket.upload(write_images(tmp_path / "images"), "named")
    hashes = set()
    for name in ("one", "two"):
        listing = remote.listed(address, LayoutConfig(anonymous=True, cache=tmp_path / name / "cache"))
        files = [f"{listing}/007/B02_s1_wDNA.tif#page=2", f"{tmp_path}/{name}/beside/a.tif", "inside.tif"]
        hashes.add(fields_sha256(pd.DataFrame({"site": 1, "file_DNA": files}), tmp_path / name / "source"))
    assert len(hashes) == 1
    moved_alone = fields_sha256(pd.DataFrame({"site": 1, "file_DNA": files}), tmp_path / "source")
    assert moved_alone not in hashes


def test_a_path_with_two_dots_is_that_without(bucket, tmp_path, public):
    folder, _ = remote.local_source(Path(bucket.upload(pattern_source(tmp_path / "local"), "dotted")), public)
    image = folder / "p-2" / ".." / "007" / "B02_s1_wDNA.tif"
    assert remote.shown(image) == f"s3://{BUCKET}/dotted/007/B02_s1_wDNA.tif"
    copy = remote.local_copy(image, named="here")
    assert copy.read_bytes() == (tmp_path / "local" / "007" / "B02_s1_wDNA.tif").read_bytes()


def test_the_cache_keeps_to_its_bound(bucket, tmp_path, public, monkeypatch):
    folder, _ = remote.local_source(Path(bucket.upload(pattern_source(tmp_path / "local"), "many")), public)
    monkeypatch.setattr(remote, "GB", 100)  # bytes: less than three of these images
    monkeypatch.setattr(remote, "IN_USE_S", 0)
    images = sorted(folder.rglob("*.tif"))
    for path in images:
        assert remote.local_copy(path, named="here").stat().st_size == path.stat().st_size
    kept = list((public.cache / "content").rglob("*.tif"))
    assert sum(path.stat().st_size for path in kept) <= 100 * public.cache_gb
    assert 0 < len(kept) < len(images)


def test_a_cut_connection_and_a_busy_server_are_tried_again(bucket, tmp_path, public, monkeypatch):
    local = pattern_source(tmp_path / "local")
    bucket.upload(local, "cut")
    with failing(bucket.endpoint, {"B02_s1_wDNA": ["cut", "slow down"]}) as endpoint:
        use(monkeypatch, endpoint)
        folder, _ = remote.local_source(Path(f"s3://{BUCKET}/cut"), public)
        image = folder / "007" / "B02_s1_wDNA.tif"
        copy = remote.local_copy(image, named="here")
    use(monkeypatch, bucket.endpoint)
    assert copy.read_bytes() == (local / "007" / "B02_s1_wDNA.tif").read_bytes()


def test_a_missing_key_is_named_and_counted(bucket, tmp_path, public):
    address = bucket.upload(pattern_source(tmp_path / "local"), "lacking")
    bucket.delete("lacking/007/B02_s1_wactin.tif")
    with pytest.raises(InputError, match=r'plate "007", well "B02", site 1: channel "actin".*1 of 12'):
        ph.check(address, layout="pattern", **settings(public))
    table = ph.check(address, layout="pattern", skip_missing=True, sample=1, **settings(public))
    assert table.loc[table["what"] == "fields without an image of each channel", "found"].item() == "1"


def test_a_key_that_vanishes_half_way_is_one_line(bucket, tmp_path, public):
    address = bucket.upload(pattern_source(tmp_path / "local"), "vanishing")
    folder, config = remote.local_source(Path(address), public)
    bucket.delete("vanishing/p-2/C11_s2_wDNA.tif")
    screen = opened(folder, "pattern", config)
    with pytest.raises(InputError, match=r"here: s3://gallery/vanishing/p-2/C11_s2_wDNA.tif") as refused:
        read_field(screen.files(screen.table.iloc[-1]), where="here")
    assert "\n" not in str(refused.value)
    assert not [name for name in content(public.cache) if "partial" in name or "C11_s2_wDNA" in name]


def test_what_cannot_be_reached_is_one_line(bucket, tmp_path, public, monkeypatch):
    cases = {
        f"s3://{BUCKET}/nothing": public,  # a bucket without the prefix
        "s3://no-such-bucket/a": public,
        f"s3://{BUCKET}/private": LayoutConfig(cache=public.cache),  # no credentials
    }
    for address, config in cases.items():
        with pytest.raises(InputError) as refused:
            remote.local_source(Path(address), config)
        assert address in str(refused.value)
        assert "\n" not in str(refused.value)
    assert not public.cache.exists()


def test_without_credentials_the_flag_is_named(bucket, public):
    with pytest.raises(InputError, match="--anonymous"):
        remote.local_source(Path(f"s3://{BUCKET}/private"), LayoutConfig(cache=public.cache))


def test_without_the_library_the_install_line_is_named(public, monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    with pytest.raises(InputError, match=r'pip install "phenolens\[cloud\]"'):
        remote.local_source(Path("s3://a/b"), public)


def test_crops_of_an_address_are_those_of_its_copy(bucket, tiny_screen, tmp_path):
    config = CropConfig(crop_px=36)
    one = make_crops(tiny_screen, tmp_path / "one", layout="bbbc021", config=config)
    reading = LayoutConfig(anonymous=True, cache=tmp_path / "cache")
    folder, reading = remote.local_source(Path(bucket.upload(tiny_screen, "tiny")), reading)
    two = make_crops(folder, tmp_path / "two", layout="bbbc021", config=config, reading=reading)
    assert two.identity == one.identity
    before = (two.folder / f"{two.plates[0]}.npy").stat().st_mtime_ns
    make_crops(folder, tmp_path / "two", layout="bbbc021", config=config, reading=reading)
    assert (two.folder / f"{two.plates[0]}.npy").stat().st_mtime_ns == before


def test_keys_that_vanish_while_crops_are_cut_leave_whole_plates_alone(bucket, tiny_screen, tmp_path, monkeypatch):
    reading = LayoutConfig(anonymous=True, cache=tmp_path / "cache")
    address = bucket.upload(tiny_screen, "leaving")
    folder, reading = remote.local_source(Path(address), reading)

    def delete(screen) -> None:
        for path in folder.rglob("Week2*/*.tif"):
            bucket.delete(remote.shown(path).removeprefix(f"s3://{BUCKET}/"))

    settings = {"layout": "bbbc021", "config": CropConfig(crop_px=36), "reading": reading}
    monkeypatch.setattr("phenolens.crops.make_crops.check_grey_values", delete)
    with pytest.raises(InputError, match=f"{address}/Week2"):
        make_crops(folder, tmp_path / "crops", **settings)
    assert {path.stem for path in (tmp_path / "crops").glob("*.npy")} == {"Week1_21101"}
    assert not list((tmp_path / "crops").rglob(".*partial"))
    monkeypatch.undo()
    bucket.upload(tiny_screen, "leaving")
    folder, _ = remote.local_source(Path(address), reading)
    assert len(make_crops(folder, tmp_path / "crops", **settings).plates) == 2
