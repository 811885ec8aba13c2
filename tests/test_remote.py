"""Sources by address give what their local copies give; what a server refuses or loses is one line."""

import errno
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock

import phenolens as ph
from layout_sources import fields, write_images, write_loaddata, write_plate_map, write_plates, write_table
from phenolens import cli
from phenolens.core.errors import InputError
from phenolens.crops.config import CropConfig
from phenolens.crops.make_crops import make_crops
from phenolens.crops.source import open_source
from phenolens.screens import remote
from phenolens.screens.config import LayoutConfig
from phenolens.screens.image_states import fields_sha256, states_and_newest
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
    assert not there["found"].str.contains(str(public.cache), regex=False).any()
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


@contextmanager
def web(folder: Path, refuses: dict[str, int] | None = None) -> Iterator[str]:
    """The address of a server that lists a folder, and answers with these codes where a path holds a key.

    Its pages link, as Apache's do, to their parents and to themselves in another order.
    """

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            code = next((code for key, code in (refuses or {}).items() if key in self.path), 0)
            self.send_error(code) if code else super().do_GET()

        def list_directory(self, path: str | os.PathLike[str]) -> BytesIO:
            names = [quote(entry.name) + "/" * entry.is_dir() for entry in sorted(Path(path).iterdir())]
            links = ["?C=N;O=D", self.path.rstrip("/").rpartition("/")[0] + "/", *names]
            page = "".join(f'<a href="{link}">{link}</a>' for link in links).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            return BytesIO(page)

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_web_server_that_lists_its_folders_is_a_source(tmp_path, public):
    pattern_source(tmp_path / "web" / "screen")
    with web(tmp_path / "web") as address:
        folder, config = remote.local_source(Path(f"{address}/screen"), public)
        screen = opened(folder, "pattern", config)
        pixels = read_field(screen.files(screen.table.iloc[0]), where="here")
        table = remote.listed(f"{address}/screen/plate_map.csv", public)
    assert len(screen.table) == len(fields())
    assert pixels.shape == (2, 40, 50)
    assert table.read_bytes() == (tmp_path / "web" / "screen" / "plate_map.csv").read_bytes()


@pytest.mark.parametrize("name", ["of may", "of%20may"])
def test_names_with_blanks_on_a_web_server_are_those_of_the_files(tmp_path, public, name):
    local = pattern_source(tmp_path / "web" / "screens" / "of may")
    with web(tmp_path / "web") as address:
        for given in ("screens", f"screens/{name}"):
            remote.local_source(Path(f"{address}/{given}"), public)
        image = next((public.cache / "listing").rglob("screens/of may/007/B02_s1_wDNA.tif"))
        copy = remote.local_copy(image, named="here")
    assert copy.read_bytes() == (local / "007" / "B02_s1_wDNA.tif").read_bytes()
    assert not list((public.cache / "listing").rglob("*%20*"))


@pytest.mark.parametrize("code", [404, 500])
def test_a_folder_that_a_web_server_links_but_does_not_show_is_not_passed_over(tmp_path, public, code):
    pattern_source(tmp_path / "web" / "screen")
    with web(tmp_path / "web", {"p-2": code}) as address, pytest.raises(InputError, match="screen/p-2/") as refused:
        remote.local_source(Path(f"{address}/screen"), public)
    assert "\n" not in str(refused.value)
    assert not public.cache.exists()


def test_a_web_server_that_does_not_answer_is_told_from_a_folder_without_anything(tmp_path, public):
    with web(tmp_path) as address, pytest.raises(InputError, match="there is nothing"):
        remote.local_source(Path(f"{address}/screen"), public)
    with pytest.raises(InputError, match=f"{address}/screen: cannot be read .*run it again when the server answers"):
        remote.local_source(Path(f"{address}/screen"), public)


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
    remote.local_copy(image.with_name("B02_s2_wDNA.tif"), named="here")
    (local / "007" / "B02_s1_wDNA.tif").write_bytes(first[::-1])
    (local / "007" / "B02_s2_wDNA.tif").unlink()
    bucket.delete("changing/007/B02_s2_wDNA.tif")
    bucket.upload(local, "changing")
    remote.local_source(Path(address), public)
    assert remote.local_copy(image, named="here").read_bytes() == first[::-1]
    assert not (folder / "007" / "B02_s2_wDNA.tif").exists()
    with pytest.raises(InputError, match=f"{address}/007/B02_s2_wDNA.tif: is not there"):
        remote.local_copy(image.with_name("B02_s2_wDNA.tif"), named="here")


@pytest.mark.parametrize("write", [write_images, write_plates])
def test_the_state_of_an_image_is_its_tag_and_not_where_the_cache_lies(bucket, tmp_path, write):
    local, key = write(tmp_path / "local"), f"state/{write.__name__}"
    one, two = (LayoutConfig(anonymous=True, cache=tmp_path / name) for name in ("one", "two"))

    def state(config: LayoutConfig) -> tuple[list[str], int]:
        folder = remote.listed(bucket.upload(local, key) if config is one else f"s3://{BUCKET}/{key}", config)
        return states_and_newest([folder / "007" / "B02_s1_wDNA.tif" if write is write_images else folder])

    first = state(one)
    assert state(two) == first
    time.sleep(1.1)
    assert state(one) == first  # written again, with another time
    changed = next(path for path in sorted(local.rglob("*")) if path.is_file() and path.stat().st_size > 100)
    changed.write_bytes(changed.read_bytes()[::-1])  # of the same size, within the same second
    assert state(one) != first
    assert first[1] == 0


def test_a_table_is_read_as_one_though_its_folder_was_listed_for_images(bucket, tmp_path, public):
    address = bucket.upload(pattern_source(tmp_path / "local"), "images-first")
    for of_images in (True, False, True):
        folder = remote.listed(address, public, of_images=of_images)
    assert (folder / "plate_map.csv").read_bytes() == (tmp_path / "local" / "plate_map.csv").read_bytes()


class Answers:
    """A file system that lists these names and cannot write what it downloads."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def find(self, path: str, *, detail: bool) -> dict[str, dict[str, int]]:
        return {f"{BUCKET}/{name}": {"size": 3} for name in self.names}

    def get(self, addresses: list[str], paths: list[str]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("name", ["/outside.tif", "../../../../outside.tif", "a/../b.tif"])
def test_a_name_that_would_leave_the_cache_is_refused(tmp_path, public, monkeypatch, name):
    name = f"{tmp_path}{name}" if name.startswith("/") else name
    monkeypatch.setattr(remote._Server, "filesystem", lambda server: Answers(name))
    with pytest.raises(InputError, match="rename it"):
        remote.listed(f"s3://{BUCKET}", public)
    assert not list(tmp_path.rglob("*.tif"))


def test_a_full_disk_is_not_the_servers_fault(public, monkeypatch):
    monkeypatch.setattr(remote._Server, "filesystem", lambda server: Answers("a.tif"))
    folder = remote.listed(f"s3://{BUCKET}/", public)
    with pytest.raises(InputError, match=f"s3://{BUCKET}/a.tif: cannot be kept in the cache .No space.*--cache"):
        remote.local_copy(folder / "a.tif", named="here")


def test_commands_that_share_a_cache_list_one_after_the_other(bucket, tmp_path, public):
    address = bucket.upload(write_images(tmp_path / "local"), "shared")
    thread = threading.Thread(target=remote.listed, args=(address, public), daemon=True)
    with FileLock(public.cache / "listing" / "s3" / f"{BUCKET}.lock"):
        thread.start()
        thread.join(1)
        assert thread.is_alive()
        assert not list((public.cache / "listing").rglob("*.tif"))
    thread.join()
    assert list((public.cache / "listing").rglob("*.tif"))


def test_a_cache_that_cannot_be_written_is_named(bucket, tmp_path):
    address = bucket.upload(write_images(tmp_path / "local"), "uncached")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=f"--cache {tmp_path}/file: cannot be written .*name another folder"):
        remote.listed(address, LayoutConfig(anonymous=True, cache=tmp_path / "file"))


@pytest.mark.parametrize("address", ["s4://b/a", "S3://b/a", "s3//b/a", "s3:b/a", "gcs://b/a", "s3://"])
def test_what_is_almost_an_address_is_told_the_schemes(public, address):
    with pytest.raises(InputError, match=r"an address begins with s3://, gs:// or https://"):
        remote.local_source(Path(address), public)


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
    assert table.loc[table["what"] == "left out: fields without an image of each channel", "found"].item() == "1"


def test_a_damaged_image_is_named_by_its_address(bucket, tmp_path, public, capsys):
    local = pattern_source(tmp_path / "local")
    image = local / "007" / "B02_s1_wDNA.tif"
    image.write_bytes(image.read_bytes()[:-500])
    address = bucket.upload(local, "damaged")
    with pytest.raises(InputError, match=f"{address}/007/B02_s1_wDNA.tif") as refused:
        ph.check(address, layout="pattern", sample=20, **settings(public))
    assert str(public.cache) not in str(refused.value)
    assert "--skip-missing" not in str(refused.value)
    assert "--plates" in str(refused.value)
    flags = ["--layout", "pattern", "--sample", "20", "--pattern", PATTERN, "--anonymous", "--cache", str(public.cache)]
    assert cli.main(["check", address, *flags]) == 2
    assert f"phenolens check: {refused.value}" in capsys.readouterr().err


def test_a_key_that_vanishes_half_way_is_one_line(bucket, tmp_path, public):
    address = bucket.upload(pattern_source(tmp_path / "local"), "vanishing")
    folder, config = remote.local_source(Path(address), public)
    bucket.delete("vanishing/p-2/C11_s2_wactin.tif")  # of two that are downloaded together
    screen = opened(folder, "pattern", config)
    with pytest.raises(InputError, match=r"here: s3://gallery/vanishing/p-2/C11_s2_wactin.tif: is not") as refused:
        read_field(screen.files(screen.table.iloc[-1]), where="here")
    assert "\n" not in str(refused.value)
    assert not [name for name in content(public.cache) if "partial" in name or "C11_s2_wactin" in name]


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


def test_credentials_are_used_and_refused_by_the_server(bucket, tmp_path, monkeypatch):
    address = bucket.upload(pattern_source(tmp_path / "local"), "guarded")
    key, secret = bucket.credentials("reader", may_read=True)
    others = {
        "Access Denied": bucket.credentials("stranger", may_read=False),
        "key id you provided does not exist": ("AKIAUNKNOWN", secret),
        "signature": (key, "another secret"),
    }
    monkeypatch.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0)  # the server asks who it is

    def listed(key: str, secret: str) -> Path:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
        use(monkeypatch, bucket.endpoint)
        return remote.local_source(Path(address), LayoutConfig(cache=tmp_path / "cache"))[0]

    for reason, pair in others.items():
        with pytest.raises(InputError, match=f"(?i)^{address}: access is denied .*{reason}.*; give .*credentials"):
            listed(*pair)
    assert not (tmp_path / "cache").exists()
    assert list(listed(key, secret).rglob("*.tif"))


def test_an_unknown_profile_is_named(bucket, monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_PROFILE", "no-such-lab")
    use(monkeypatch, bucket.endpoint)
    with pytest.raises(InputError, match=r"access is denied .*no-such-lab.*credentials"):
        remote.local_source(Path(f"s3://{BUCKET}/a"), LayoutConfig(cache=tmp_path / "cache"))


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
