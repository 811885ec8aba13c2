"""BBBC021 from a server: tables and plates arrive whole or not at all, and the same command goes on where it stood."""

import io
import signal
import socket
import stat
import time
import zipfile
from pathlib import Path

import pytest

from bbbc021_source import PLATES, write_source
from file_server import Fault, serving
from phenolens import cli
from phenolens.core.errors import InputError
from phenolens.core.files import alone
from phenolens.screens import download as module
from phenolens.screens.bbbc021 import read_bbbc021
from phenolens.screens.download import MARKER, FetchConfig, fetch_bbbc021, what_is_wrong
from processes import Command, Moment
from whole_files import different_files

FIRST, SECOND = PLATES
TABLES = ["BBBC021_v1_compound.csv", "BBBC021_v1_image.csv", "BBBC021_v1_moa.csv"]


def archive(plate: str) -> str:
    """The name of a plate's archive."""
    return f"BBBC021_v1_images_{plate}.zip"


def packed(members: dict[str, bytes], *, how: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return file.getvalue()


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A screen in BBBC021's layout: two plates of 24 images."""
    return write_source(tmp_path_factory.mktemp("source"))


@pytest.fixture
def server(source):
    """A server that has the screen as the official one has BBBC021."""
    files = {name: (source / name).read_bytes() for name in TABLES[1:]}
    files[TABLES[0]] = b"compound,smiles\ndrug/one,CC\ndrug two,CCC\n"
    for plate in PLATES:
        images = {f"{plate}/{path.name}": path.read_bytes() for path in sorted((source / plate).iterdir())}
        files[archive(plate)] = packed(images)
    with serving(files=files) as told:
        yield told


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def fetch(server, out):
    """Fetch in this process, with waits too short to be felt."""
    return lambda *plates, **how: fetch_bbbc021(
        out, FetchConfig(plates=plates, mirror=server.address, **how), first_wait_s=0.001
    )


@pytest.fixture
def command(server, out, tmp_path):
    """`phenolens fetch bbbc021 OUT` of the first plate, in a process of its own."""
    words = ["fetch", "bbbc021", out, "--plates", FIRST, "--mirror", server.address]
    return lambda **how: Command(*words, said=tmp_path / "said", **how)


def names_in(folder: Path) -> list[str]:
    """What is in a folder, hidden or not, but for the lock."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".fetch.lock")


def images_in(folder: Path) -> dict[str, bytes]:
    """The images of a plate's folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != MARKER}


def wait_for(path: Path, n_bytes: int) -> None:
    """Wait until a file has grown to this size."""
    deadline = time.monotonic() + 60
    while not (path.is_file() and path.stat().st_size >= n_bytes):
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_every_plate_arrives_with_its_bytes_and_is_found_by_the_reader(fetch, server, source, out):
    assert fetch() == {plate: out / plate for plate in sorted(PLATES)}
    for plate in PLATES:
        assert images_in(out / plate) == images_in(source / plate)
    assert names_in(out) == sorted([*TABLES, *PLATES])
    screen = read_bbbc021(out, images=out)
    assert len(screen.table) == len(read_bbbc021(source, images=source).table) > 0
    assert server.sent == {name: len(content) for name, content in server.files.items()}


def test_what_is_fetched_is_cropped_by_the_command_it_names(server, source, out, tmp_path, capsys):
    assert cli.main(["fetch", "bbbc021", str(out), "--mirror", server.address]) == 0
    said = capsys.readouterr().err
    assert "Caie et al." in said
    assert "licence of the images is unclear" in said
    (out / "Nuclei.csv").write_bytes((source / "Nuclei.csv").read_bytes())
    (line,) = [line for line in said.splitlines() if line.startswith("phenolens crop STUDY")]
    words = line.replace("STUDY", str(tmp_path / "study")).split()[1:]
    assert cli.main([*words, "--crop-px", "20"]) == 0


def test_plates_can_be_chosen_and_the_folder_may_stand_last(server, out, capsys):
    mirror = ["--mirror", server.address]
    assert cli.main(["fetch", "bbbc021", *mirror, "--plates", FIRST, str(out)]) == 0
    assert names_in(out) == sorted([*TABLES, FIRST])
    assert f"--plates {FIRST}" in capsys.readouterr().err.splitlines()[-1]
    assert cli.main(["fetch", "bbbc021", str(out), *mirror, "--plates", SECOND]) == 0
    assert names_in(out) == sorted([*TABLES, *PLATES])


@pytest.mark.parametrize("words", [[], ["--plates", FIRST], ["--plates"]])
def test_without_a_folder_nothing_is_asked_for(server, capsys, words):
    assert cli.main(["fetch", "bbbc021", "--mirror", server.address, *words]) == 2
    assert "no folder to download into" in capsys.readouterr().err
    assert server.asked == []


def test_flags_before_the_name_of_the_screen_are_refused_with_the_order(capsys):
    assert cli.main(["fetch", "--plates", FIRST]) == 2
    assert "phenolens fetch bbbc021 OUT ..." in capsys.readouterr().err


def test_an_unknown_plate_is_refused_with_the_nearest_before_any_archive(fetch, server, out):
    with pytest.raises(InputError, match='no such plate; the nearest is "Week1_22123"'):
        fetch("Week1_22132")
    assert names_in(out) == TABLES
    assert not [name for _, name, _ in server.asked if name.endswith(".zip")]


@pytest.mark.parametrize(
    "mirror", ["ftp://host/x", "file:///etc", "host/x", "http://", "https://host/x?key=1", "javascript:1"]
)
def test_a_mirror_that_is_no_web_address_is_refused(mirror):
    with pytest.raises(InputError, match="expected an address such as https://"):
        FetchConfig(mirror=mirror)


def test_a_server_that_cannot_be_reached_is_no_bad_input(out, capsys):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert cli.main(["fetch", "bbbc021", str(out), "--mirror", f"http://127.0.0.1:{port}", "--tries", "1"]) == 1
    assert "the server cannot be reached (Connection refused), 1 times in a row" in capsys.readouterr().err


def test_given_again_it_asks_for_nothing(fetch, server):
    fetch()
    server.asked.clear()
    fetch()
    assert server.asked == []


def test_a_deleted_plate_alone_is_fetched_again(fetch, server, out):
    fetch()
    for path in (out / FIRST).iterdir():
        path.unlink()
    (out / FIRST).rmdir()
    server.asked.clear()
    fetch()
    assert [name for method, name, _ in server.asked if method == "GET"] == [archive(FIRST)]


def test_plates_that_lie_in_a_folder_a_week_are_there(server, tmp_path):
    there = write_source(tmp_path / "there", weeks_as_folders=True)
    folders = fetch_bbbc021(there, FetchConfig(mirror=server.address))
    assert folders[FIRST] == there / "Week1" / FIRST
    assert [name for _, name, _ in server.asked] == ["BBBC021_v1_compound.csv"]


def test_a_folder_that_holds_half_a_plate_of_somebody_elses_is_not_touched(fetch, server, source, out):
    (out / FIRST).mkdir(parents=True)
    name, content = next(iter(images_in(source / FIRST).items()))
    (out / FIRST / name).write_bytes(content)
    with pytest.raises(InputError, match="23 of 24 images are not in it, and this command did not make it; move it"):
        fetch()
    assert names_in(out / FIRST) == [name]


def test_archives_are_kept_when_that_is_asked_for(fetch, server, out):
    fetch(keep_archives=True)
    for plate in PLATES:
        assert (out / archive(plate)).read_bytes() == server.files[archive(plate)]


def test_an_archive_that_was_downloaded_otherwise_is_taken(fetch, server, source, out):
    out.mkdir()
    (out / archive(FIRST)).write_bytes(server.files[archive(FIRST)])
    fetch(FIRST)
    assert server.gets(archive(FIRST)) == []
    assert images_in(out / FIRST) == images_in(source / FIRST)


def test_connections_cut_again_and_again_send_every_byte_once(fetch, server, source, out):
    for name in server.files:
        server.faults[name] = [Fault(cut_after=len(server.files[name]) // 3)] * 2
    fetch(parallel=2)
    assert different_files(source / FIRST, out / FIRST) in ([], [MARKER])
    assert server.sent == {name: len(content) for name, content in server.files.items()}


def test_a_plate_that_the_server_does_not_have_is_named_and_the_others_arrive(fetch, server, out):
    del server.files[archive(FIRST)]
    with pytest.raises(InputError, match=rf"{FIRST}: http.*{archive(FIRST)}: the server has no such file \(404\)"):
        fetch()
    assert names_in(out) == sorted([*TABLES, SECOND])


def test_a_page_in_place_of_a_table_is_refused_and_asked_for_again(fetch, server, out):
    table = server.files["BBBC021_v1_image.csv"]
    server.files["BBBC021_v1_image.csv"] = b"<html>please log in</html>"
    with pytest.raises(InputError, match=r"/BBBC021_v1_image\.csv: no rows|no column .*; see --mirror"):
        fetch()
    assert names_in(out) == []
    server.files["BBBC021_v1_image.csv"] = table
    fetch()


def corrupt(content: bytes) -> bytes:
    """The archive with one byte of its first image changed."""
    position = content.index(b"II*\0") + 3000
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


def test_an_archive_with_a_wrong_crc_is_refused_and_asked_for_anew(fetch, server, source, out):
    whole = server.files[archive(FIRST)]
    server.files[archive(FIRST)] = corrupt(whole)
    with pytest.raises(InputError, match=r"damaged \(Bad CRC-32 for file"):
        fetch(keep_archives=True)
    assert names_in(out) == sorted([*TABLES, SECOND, archive(SECOND)])
    server.files[archive(FIRST)] = whole
    fetch()
    assert images_in(out / FIRST) == images_in(source / FIRST)


@pytest.mark.parametrize("damage", [lambda whole: whole[:-100], lambda whole: b"<html>" * 50, lambda whole: b""])
def test_what_is_no_archive_is_refused(fetch, server, out, damage):
    server.files[archive(FIRST)] = damage(server.files[archive(FIRST)])
    with pytest.raises(InputError, match="damaged"):
        fetch(FIRST)
    assert names_in(out) == TABLES


def test_a_length_that_is_too_small_does_not_make_a_plate(fetch, server, out):
    server.faults[archive(FIRST)] = [Fault(said_length=5000)]
    with pytest.raises(InputError, match="damaged"):
        fetch(FIRST)
    assert names_in(out) == TABLES


def link(name: str) -> zipfile.ZipInfo:
    """A member that is a symbolic link."""
    member = zipfile.ZipInfo(name)
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member


@pytest.mark.parametrize(
    "evil",
    [
        "../evil.tif",
        "Week1_22123/../../evil.tif",
        "/tmp/evil.tif",
        "..\\evil.tif",
        "C:\\evil.tif",
        "C:evil.tif",
        "Week1_22123/evil.tif\n",
        "../evil.txt",
        link("Week1_22123/link.tif"),
        link("link"),
    ],
)
def test_an_archive_with_a_path_that_leaves_the_folder_is_not_unpacked_at_all(fetch, server, out, evil):
    content = io.BytesIO(server.files[archive(FIRST)])
    with zipfile.ZipFile(content, "a") as opened:
        opened.writestr(evil, b"../../target")
    server.files[archive(FIRST)] = content.getvalue()
    with pytest.raises(InputError, match="nothing of it was unpacked"):
        fetch(FIRST)
    assert names_in(out) == TABLES
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_an_encrypted_member_is_refused_and_a_plain_one_is_not():
    member = zipfile.ZipInfo("B02_s1_w1.tif")
    assert what_is_wrong(member) == ""
    member.flag_bits |= 1
    assert "encrypted" in what_is_wrong(member)


def test_an_archive_without_an_image_makes_no_plate(fetch, server, out):
    server.files[archive(FIRST)] = packed({"Week1_22123/readme.txt": b"nothing here"})
    with pytest.raises(InputError, match="holds no image"):
        fetch(FIRST)
    assert names_in(out) == TABLES


def test_an_archive_that_unpacks_to_more_than_the_disk_has_is_kept_and_not_begun(fetch, server, out, monkeypatch):
    images = {"B02_s1_w1.tif": b"\0" * 1_000_000}  # packed to a thousandth
    server.files[archive(FIRST)] = packed(images, how=zipfile.ZIP_DEFLATED)
    usage = module.shutil.disk_usage(out.parent)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage._replace(free=999_999))
    with pytest.raises(OSError, match="No space left"):
        fetch(FIRST)
    assert names_in(out) == sorted([*TABLES, archive(FIRST)])


def test_an_archive_of_another_length_than_the_servers_is_downloaded_anew(fetch, server, source, out):
    out.mkdir()
    (out / archive(FIRST)).write_bytes(server.files[archive(FIRST)][:1000])
    fetch(FIRST)
    assert images_in(out / FIRST) == images_in(source / FIRST)


def test_two_images_that_some_disks_hold_for_one_are_refused(fetch, server, out):
    server.files[archive(FIRST)] = packed({"a/B02_s1_w1.tif": b"1", "b/b02_s1_w1.TIF": b"2"})
    with pytest.raises(InputError, match="twice"):
        fetch(FIRST)
    assert names_in(out) == TABLES


@pytest.mark.parametrize("folder", ["", "Week1/Week1_22123/", "deep/er/still/"])
def test_images_land_in_the_plates_folder_wherever_they_lie_in_the_archive(fetch, server, source, out, folder):
    images = {f"{folder}{name}": content for name, content in images_in(source / FIRST).items()}
    more = {"__MACOSX/._B02.tif": b"resource", "Thumbs.db": b"thumbs", "notes/": b""}
    server.files[archive(FIRST)] = packed(images | more, how=zipfile.ZIP_DEFLATED)
    fetch(FIRST)
    assert images_in(out / FIRST) == images_in(source / FIRST)


def test_images_that_the_archive_lacks_are_counted(fetch, server, source, out, capsys):
    images = dict(list(images_in(source / FIRST).items())[:20])
    server.files[archive(FIRST)] = packed(images)
    fetch(FIRST)
    assert f"{FIRST}: 20 images; 4 images that the image table names are not" in capsys.readouterr().err
    server.asked.clear()
    fetch(FIRST)
    assert server.asked == []


def test_the_size_is_said_and_a_disk_that_is_too_small_refused_before_anything_is_downloaded(
    fetch, server, out, monkeypatch, capsys
):
    n_bytes = sum(len(server.files[archive(plate)]) for plate in PLATES)
    one = max(len(server.files[archive(plate)]) for plate in PLATES)
    room = {"free": int(2.5 * n_bytes + one)}
    usage = module.shutil.disk_usage(out.parent)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage._replace(free=room["free"] - 1))
    with pytest.raises(InputError, match=r"needs about .* choose fewer plates with --plates, or another folder"):
        fetch(parallel=1)
    assert names_in(out) == TABLES
    assert f"2 plates: {n_bytes / 1e6:.1f} MB to download of {n_bytes / 1e6:.1f} MB" in capsys.readouterr().err
    room["free"] += 1
    fetch(parallel=1)


def test_two_processes_do_not_fetch_into_one_folder(fetch, out):
    with (
        alone(out / ".fetch.lock", doing="fetching"),
        pytest.raises(InputError, match="another process is fetching"),
    ):
        fetch()


def test_killed_in_a_download_the_same_command_asks_for_the_rest_alone(command, fetch, server, source, out):
    name, whole = archive(FIRST), server.files[archive(FIRST)]
    half = len(whole) // 2
    server.faults[name] = [Fault(cut_after=half, hang=True)]
    process = command()
    wait_for(out / f".{name}.partial", half)
    assert process.kill_after(0) == -signal.SIGKILL
    fetch(FIRST)
    assert server.gets(name) == ["", f"bytes={half}-"]
    assert server.sent[name] == len(whole)
    assert images_in(out / FIRST) == images_in(source / FIRST)
    assert names_in(out) == sorted([*TABLES, FIRST])


def test_killed_at_any_moment_the_same_command_ends_with_the_same_files(command, fetch, server, source, out):
    """A moment is just before a file or folder is opened, renamed, removed or made; each kill goes on from the last."""
    for n in (3, 6, 9, 11, 13, 34):
        assert command(moment=Moment(out, n, (signal.SIGKILL,))).ended()[0] == -signal.SIGKILL, n
        assert not (out / FIRST).exists() or images_in(out / FIRST) == images_in(source / FIRST)
    assert command().ended()[0] == 0
    assert images_in(out / FIRST) == images_in(source / FIRST)
    assert names_in(out) == sorted([*TABLES, FIRST])


@pytest.mark.parametrize("stopped_by", [signal.SIGINT, signal.SIGTERM])
def test_stopped_while_a_server_is_silent_it_ends_at_once_and_goes_on_later(
    command, fetch, server, source, out, stopped_by
):
    name, whole = archive(FIRST), server.files[archive(FIRST)]
    server.faults[name] = [Fault(cut_after=40_000, hang=True)]
    process = command()
    wait_for(out / f".{name}.partial", 40_000)
    began = time.monotonic()
    process.send(stopped_by)
    status, said = process.ended()
    assert status == 130
    assert time.monotonic() - began < 10  # the silence would have been borne with for 30 s
    assert said[-1] == "phenolens fetch: stopped; the same command goes on where it stood"
    fetch(FIRST)
    assert server.sent[name] == len(whole)
    assert images_in(out / FIRST) == images_in(source / FIRST)


def test_killed_before_the_archive_is_removed_it_is_removed_later(command, fetch, server, out):
    """The archive's removal is the last of the file's moments; one that was to be kept stays."""
    removal = Moment(out / archive(FIRST), 2, (signal.SIGKILL,))  # after it was opened to be unpacked
    assert command(moment=removal).ended()[0] == -signal.SIGKILL
    assert names_in(out) == sorted([*TABLES, FIRST, archive(FIRST)])
    fetch(FIRST)
    assert names_in(out) == sorted([*TABLES, FIRST])
    fetch(SECOND, keep_archives=True)
    fetch(SECOND)
    assert names_in(out) == sorted([*TABLES, *PLATES, archive(SECOND)])


def test_killed_while_unpacking_nothing_is_downloaded_again(command, fetch, server, source, out):
    moment = Moment(out / f".{FIRST}.partial", 20, (signal.SIGKILL,))
    assert command(moment=moment).ended()[0] == -signal.SIGKILL
    assert names_in(out) == sorted([*TABLES, f".{FIRST}.partial", archive(FIRST)])
    assert command().ended()[0] == 0
    assert images_in(out / FIRST) == images_in(source / FIRST)
    assert server.sent[archive(FIRST)] == len(server.files[archive(FIRST)])
    assert names_in(out) == sorted([*TABLES, FIRST])


def test_a_disk_that_fills_while_downloading_is_one_line_and_the_same_command_goes_on(
    command, fetch, server, source, out
):
    status, said = command(largest_file=50_000).ended()
    assert status == 2
    assert [line for line in said if line.startswith("phenolens fetch:")] == said[-1:]
    assert "the disk is full" in said[-1]
    assert not (out / FIRST).exists()
    fetch(FIRST)
    assert server.gets(archive(FIRST)) == ["", "bytes=50000-"]
    assert images_in(out / FIRST) == images_in(source / FIRST)


def test_a_disk_that_fills_while_unpacking_keeps_the_archive_and_no_half_plate(command, fetch, server, out):
    images = {"B02_s1_w1.tif": b"\0" * 500_000, "B02_s1_w2.tif": b"\1" * 500_000}
    server.files[archive(FIRST)] = packed(images, how=zipfile.ZIP_DEFLATED)
    status, said = command(largest_file=100_000).ended()
    assert status == 2
    assert "the disk is full" in said[-1]
    assert names_in(out) == sorted([*TABLES, archive(FIRST)])
    fetch(FIRST)
    assert server.sent[archive(FIRST)] == len(server.files[archive(FIRST)])
    assert images_in(out / FIRST) == images


def test_the_official_image_table_names_55_plates_of_720_images(real_data):
    images = module.images_of_plates(real_data / "bbbc021" / "metadata" / "BBBC021_v1_image.csv.gz")
    assert len(images) == 55
    assert {len(names) for names in images.values()} == {720}
