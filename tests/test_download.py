"""BBBC021 from a server: tables and plates arrive complete or not at all, and the same command resumes by plate."""

import errno
import io
import signal
import socket
import stat
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests

from bbbc021_source import PLATES, write_source
from file_server import Fault, serving
from phenolens import cli
from phenolens.core.errors import InputError
from phenolens.core.files import alone
from phenolens.screens import download as module
from phenolens.screens.bbbc021 import read_bbbc021
from phenolens.screens.download import CHUNK_BYTES, FetchConfig, fetch_bbbc021, problem_of, refuse_downgrade
from processes import Command, Moment

FIRST, SECOND = PLATES
TABLES = ["BBBC021_v1_compound.csv", "BBBC021_v1_image.csv", "BBBC021_v1_moa.csv"]
PARTIAL = ".fetch.partial"


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
    with serving(files=files) as state:
        yield state


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def fetch(server, out, monkeypatch):
    """Fetch in this process, without waiting between attempts."""
    monkeypatch.setattr("pooch.core.time", SimpleNamespace(sleep=lambda _: None))
    return lambda *plates, **how: fetch_bbbc021(out, FetchConfig(plates=plates, mirror=server.address, **how))


@pytest.fixture
def command(server, out, tmp_path):
    """`phenolens fetch bbbc021 OUT` of the first plate, in a process of its own."""
    arguments = ["fetch", "bbbc021", out, "--plates", FIRST, "--mirror", server.address]
    return lambda **how: Command(*arguments, said=tmp_path / "said", **how)


def names_in(folder: Path) -> list[str]:
    """What is in a folder, hidden or not, except the lock."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".fetch.lock")


def images_in(folder: Path) -> dict[str, bytes]:
    """The images of a plate's folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def has_chunk(file: Path) -> bool:
    """Whether the first chunk of a download is on disk; temporary files of tables vanish meanwhile."""
    try:
        return file.stat().st_size >= CHUNK_BYTES
    except FileNotFoundError:
        return False


def wait_for_download(out: Path) -> None:
    """Wait until the first chunk of an archive is on disk."""
    deadline = time.monotonic() + 60
    while not any(map(has_chunk, (out / PARTIAL).glob("tmp*"))):
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_every_plate_arrives_with_its_bytes_and_is_found_by_the_reader(fetch, server, source, out):
    assert fetch() == {plate: out / plate for plate in sorted(PLATES)}
    for plate in PLATES:
        assert images_in(out / plate) == images_in(source / plate)
    assert names_in(out) == sorted([*TABLES, *PLATES])
    screen = read_bbbc021(out, images=out)
    assert len(screen.table) == len(read_bbbc021(source, images=source).table) > 0
    assert [server.n_gets(name) for name in server.files] == [1] * len(server.files)


def test_a_fetched_screen_is_cropped_by_the_command_that_fetch_prints(server, source, out, tmp_path, capsys):
    assert cli.main(["fetch", "bbbc021", str(out), "--mirror", server.address]) == 0
    said = capsys.readouterr().err
    assert "Caie et al." in said
    assert "licence" in said
    (out / "Nuclei.csv").write_bytes((source / "Nuclei.csv").read_bytes())
    (line,) = [line for line in said.splitlines() if line.startswith("phenolens crop STUDY")]
    arguments = line.replace("STUDY", str(tmp_path / "study")).split()[1:]
    assert cli.main([*arguments, "--crop-px", "20"]) == 0


def test_plates_can_be_chosen_and_the_folder_may_come_last(server, out, capsys):
    mirror = ["--mirror", server.address]
    assert cli.main(["fetch", "bbbc021", *mirror, "--plates", FIRST, str(out)]) == 0
    assert names_in(out) == sorted([*TABLES, FIRST])
    assert f"--plates {FIRST}" in capsys.readouterr().err.splitlines()[-1]
    assert cli.main(["fetch", "bbbc021", str(out), *mirror, "--plates", SECOND]) == 0
    assert names_in(out) == sorted([*TABLES, *PLATES])


@pytest.mark.parametrize("arguments", [[], ["--plates", FIRST], ["--plates"]])
def test_without_a_folder_nothing_is_requested(server, capsys, arguments):
    assert cli.main(["fetch", "bbbc021", "--mirror", server.address, *arguments]) == 2
    assert "phenolens fetch bbbc021 OUT" in capsys.readouterr().err
    assert server.requests == []


def test_flags_before_the_name_of_the_screen_are_refused_with_the_order(capsys):
    assert cli.main(["fetch", "--plates", FIRST]) == 2
    said = capsys.readouterr().err
    assert "--plates" in said
    assert "bbbc021 OUT" in said


def test_an_unknown_plate_is_refused_with_the_nearest_before_any_archive(fetch, server, out):
    with pytest.raises(InputError, match=r'"Week1_22132".*"Week1_22123"'):
        fetch("Week1_22132")
    assert names_in(out) == TABLES
    assert not [name for _, name in server.requests if name.endswith(".zip")]


@pytest.mark.parametrize(
    "mirror", ["ftp://host/x", "file:///etc", "host/x", "http://", "https://host/x?key=1", "javascript:1"]
)
def test_a_mirror_that_is_not_a_web_address_is_refused(mirror):
    with pytest.raises(InputError, match="--mirror"):
        FetchConfig(mirror=mirror)


def test_an_unreachable_server_is_one_line_with_exit_code_2(out, capsys):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    assert cli.main(["fetch", "bbbc021", str(out), "--mirror", address, "--tries", "2"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("phenolens fetch: ")]
    assert address in line
    assert "Connection refused" in line
    assert names_in(out) == []


def test_a_server_that_disappears_after_the_tables_ends_the_command_at_the_first_plate(fetch, out):
    fetch()
    for plate in PLATES:
        (out / plate).rename(out.parent / plate)
    with serving() as gone:
        pass
    with pytest.raises(InputError, match=f"^{gone.address}/{archive(min(PLATES))}: "):
        fetch_bbbc021(out, FetchConfig(mirror=gone.address, tries=1))


def test_a_failure_that_concerns_all_plates_stops_the_others(fetch, server, out, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left")

    monkeypatch.setattr(module, "unpack_images", full)
    with pytest.raises(OSError, match="No space left"):
        fetch(parallel=1)
    assert [server.n_gets(archive(plate)) for plate in sorted(PLATES)] == [1, 0]
    assert names_in(out) == sorted([*TABLES, archive(min(PLATES))])


def test_a_complete_fetch_requests_nothing_when_repeated(fetch, server):
    fetch()
    server.requests.clear()
    fetch()
    assert server.requests == []


def test_only_a_deleted_plate_is_fetched_again(fetch, server, out):
    fetch()
    for path in (out / FIRST).iterdir():
        path.unlink()
    (out / FIRST).rmdir()
    server.requests.clear()
    fetch()
    assert server.requests == [("HEAD", archive(FIRST)), ("GET", archive(FIRST))]


def test_plates_in_a_folder_per_week_are_found(server, tmp_path):
    there = write_source(tmp_path / "there", weeks_as_folders=True)
    folders = fetch_bbbc021(there, FetchConfig(mirror=server.address))
    assert folders[FIRST] == there / "Week1" / FIRST
    assert {name for _, name in server.requests} == {"BBBC021_v1_compound.csv"}


def test_an_existing_folder_is_left_alone_and_its_missing_images_are_counted(fetch, source, out, capsys):
    (out / FIRST).mkdir(parents=True)
    name, content = next(iter(images_in(source / FIRST).items()))
    (out / FIRST / name).write_bytes(content)
    fetch(FIRST)
    assert images_in(out / FIRST) == {name: content}
    assert f"{out / FIRST}: lacks 23 of 24 images" in capsys.readouterr().err


def test_archives_are_kept_on_request(fetch, server, out):
    fetch(keep_archives=True)
    for plate in PLATES:
        assert (out / archive(plate)).read_bytes() == server.files[archive(plate)]


def test_an_archive_in_the_folder_is_unpacked_without_a_download(fetch, server, source, out):
    out.mkdir()
    (out / archive(FIRST)).write_bytes(server.files[archive(FIRST)])
    fetch(FIRST)
    assert server.n_gets(archive(FIRST)) == 0
    assert images_in(out / FIRST) == images_in(source / FIRST)
    assert names_in(out) == sorted([*TABLES, FIRST])


def test_an_archive_whose_length_differs_from_the_servers_is_downloaded_again(fetch, server, source, out):
    out.mkdir()
    (out / archive(FIRST)).write_bytes(server.files[archive(FIRST)][:1000])
    fetch(FIRST)
    assert images_in(out / FIRST) == images_in(source / FIRST)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(cut_after=10_000),
        Fault(cut_after=10_000, reset=True),
        Fault(cut_after=10_000, hang=True),
        Fault(status=503),
        Fault(said_length=5000),  # too short: the body is cut to it
        Fault(said_length=10_000_000),
    ],
    ids=str,
)
def test_a_failed_attempt_is_repeated(fetch, server, source, out, fault):
    server.faults[archive(FIRST)] = [fault, fault]
    began = time.monotonic()
    fetch(FIRST, tries=3, timeout_s=0.3)
    assert time.monotonic() - began < 20  # twice pooch's own time-out would be 60 s
    assert images_in(out / FIRST) == images_in(source / FIRST)
    assert server.n_gets(archive(FIRST)) == 3
    assert names_in(out) == sorted([*TABLES, FIRST])


def test_a_busy_server_is_asked_again_for_a_length(fetch, server, out):
    server.faults[archive(FIRST)] = [Fault(method="HEAD", status=503)]
    fetch(FIRST)
    assert server.requests.count(("HEAD", archive(FIRST))) == 2
    assert names_in(out) == sorted([*TABLES, FIRST])


@pytest.mark.parametrize("fault", [Fault(cut_after=10_000), Fault(status=503), Fault(said_length=5000)], ids=str)
def test_after_the_last_attempt_the_plate_is_named_and_the_others_arrive(fetch, server, out, fault):
    server.faults[archive(FIRST)] = [fault] * 9
    with pytest.raises(InputError, match=f"^{FIRST}: .*{archive(FIRST)}"):
        fetch(tries=2)
    assert server.n_gets(archive(FIRST)) == 2
    assert names_in(out) == sorted([*TABLES, SECOND])


def test_a_plate_that_the_server_lacks_is_named_and_the_others_arrive(fetch, server, out):
    del server.files[archive(FIRST)]
    with pytest.raises(InputError, match=rf"^{FIRST}: http.*{archive(FIRST)}: .*404"):
        fetch()
    assert names_in(out) == sorted([*TABLES, SECOND])


def test_a_server_that_states_no_length_is_refused(fetch, server, out):
    server.headers = {"Content-Length": ""}
    with pytest.raises(InputError, match=TABLES[1]):
        fetch()
    assert names_in(out) == []


def test_a_page_in_place_of_a_table_is_refused_and_requested_again_later(fetch, server, out):
    table = server.files[TABLES[1]]
    server.files[TABLES[1]] = b"<html>please log in</html>"
    with pytest.raises(InputError, match=f"^http.*/{TABLES[1]}: .*--mirror"):
        fetch()
    assert names_in(out) == []
    server.files[TABLES[1]] = table
    fetch()


def test_a_redirect_from_https_to_http_is_refused():
    response = requests.Response()
    response.status_code, response.url = 302, "https://host/x"
    response.headers["Location"] = "/y"
    refuse_downgrade(response)
    response.headers["Location"] = "http://host/x"
    with pytest.raises(InputError, match=r"https://host/x: .*http://host/x"):
        refuse_downgrade(response)


def test_a_redirect_to_a_local_file_is_refused(fetch, server, tmp_path, out):
    (tmp_path / "secret").write_text("compound\nsecret\n")
    server.headers = {"Location": f"file://{tmp_path / 'secret'}"}
    server.faults[TABLES[1]] = [Fault(status=302)] * 9
    with pytest.raises(InputError):
        fetch()
    assert names_in(out) == []


def corrupt(content: bytes) -> bytes:
    """The archive with one byte of its first image changed."""
    position = content.index(b"II*\0") + 3000
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


def test_an_archive_with_a_wrong_crc_is_refused_and_downloaded_again_later(fetch, server, source, out):
    whole = server.files[archive(FIRST)]
    server.files[archive(FIRST)] = corrupt(whole)
    with pytest.raises(InputError, match=f"{archive(FIRST)}: .*CRC-32"):
        fetch(keep_archives=True)
    assert names_in(out) == sorted([*TABLES, SECOND, archive(SECOND)])
    server.files[archive(FIRST)] = whole
    fetch()
    assert images_in(out / FIRST) == images_in(source / FIRST)


@pytest.mark.parametrize("damage", [lambda whole: whole[:-100], lambda whole: b"<html>" * 50, lambda whole: b""])
def test_what_is_not_an_archive_is_refused(fetch, server, out, damage):
    server.files[archive(FIRST)] = damage(server.files[archive(FIRST)])
    with pytest.raises(InputError, match=archive(FIRST)):
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
def test_an_archive_with_a_path_outside_its_folder_is_not_unpacked(fetch, server, out, evil):
    content = io.BytesIO(server.files[archive(FIRST)])
    with zipfile.ZipFile(content, "a") as opened:
        opened.writestr(evil, b"../../target")
    server.files[archive(FIRST)] = content.getvalue()
    with pytest.raises(InputError, match=archive(FIRST)):
        fetch(FIRST)
    assert names_in(out) == TABLES
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_an_encrypted_member_is_refused_and_a_plain_one_is_not():
    member = zipfile.ZipInfo("B02_s1_w1.tif")
    assert problem_of(member) == ""
    member.flag_bits |= 1
    assert "encrypted" in problem_of(member)


@pytest.mark.parametrize(
    "members", [{"Week1_22123/readme.txt": b"nothing"}, {"a/B02_s1_w1.tif": b"1", "b/b02_s1_w1.TIF": b"2"}]
)
def test_an_archive_without_images_or_with_one_twice_is_refused(fetch, server, out, members):
    server.files[archive(FIRST)] = packed(members)
    with pytest.raises(InputError, match=archive(FIRST)):
        fetch(FIRST)
    assert names_in(out) == TABLES


@pytest.mark.parametrize("folder", ["", "Week1/Week1_22123/", "deeper/and/deeper/"])
def test_images_reach_the_plates_folder_from_any_folder_of_the_archive(fetch, server, source, out, folder):
    images = {f"{folder}{name}": content for name, content in images_in(source / FIRST).items()}
    more = {"__MACOSX/._B02.tif": b"resource", "Thumbs.db": b"thumbs", "notes/": b""}
    server.files[archive(FIRST)] = packed(images | more, how=zipfile.ZIP_DEFLATED)
    fetch(FIRST)
    assert images_in(out / FIRST) == images_in(source / FIRST)


def test_a_disk_that_is_too_small_is_refused_before_any_archive_is_downloaded(fetch, server, out, monkeypatch):
    lengths = [len(server.files[archive(plate)]) for plate in PLATES]
    room = {"free": int(2.5 * sum(lengths) + max(lengths))}
    usage = module.shutil.disk_usage(out.parent)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage._replace(free=room["free"] - 1))
    with pytest.raises(InputError, match=f"{out}: .*--plates"):
        fetch(parallel=1)
    assert names_in(out) == TABLES
    room["free"] += 1
    fetch(parallel=1)


def test_two_processes_do_not_fetch_into_one_folder(fetch, out):
    with alone(out / ".fetch.lock", doing="fetching"), pytest.raises(InputError, match=str(out)):
        fetch()


def test_a_killed_command_leaves_only_what_the_next_one_removes(command, fetch, server, source, out):
    server.faults[archive(FIRST)] = [Fault(cut_after=CHUNK_BYTES, hang=True)]
    process = command()
    wait_for_download(out)
    assert process.kill_after(0) == -signal.SIGKILL
    assert names_in(out) == sorted([*TABLES, PARTIAL])
    fetch(FIRST)
    assert images_in(out / FIRST) == images_in(source / FIRST)
    assert names_in(out) == sorted([*TABLES, FIRST])


def test_killed_at_any_moment_the_same_command_ends_with_the_same_files(command, source, out):
    """A moment is just before a file or folder is opened, renamed, removed or made."""
    for n in (3, 6, 9, 12, 18, 40):
        assert command(moment=Moment(out, n, (signal.SIGKILL,))).ended()[0] == -signal.SIGKILL, n
        assert not (out / FIRST).exists()
    assert command().ended()[0] == 0
    assert images_in(out / FIRST) == images_in(source / FIRST)
    assert names_in(out) == sorted([*TABLES, FIRST])


@pytest.mark.parametrize("stopped_by", [signal.SIGINT, signal.SIGTERM])
def test_stopped_while_a_server_is_silent_it_ends_at_once(command, fetch, server, source, out, stopped_by):
    server.faults[archive(FIRST)] = [Fault(cut_after=CHUNK_BYTES, hang=True)]
    process = command()
    wait_for_download(out)
    began = time.monotonic()
    process.send(stopped_by)
    assert process.ended()[0] == 130
    assert time.monotonic() - began < 10  # the time-out is 30 s
    fetch(FIRST)
    assert images_in(out / FIRST) == images_in(source / FIRST)
    assert names_in(out) == sorted([*TABLES, FIRST])


@pytest.mark.parametrize("full_while", ["downloading", "unpacking"])
def test_a_full_disk_is_one_line_with_exit_code_2_and_leaves_no_half_plate(command, fetch, server, out, full_while):
    images = {"B02_s1_w1.tif": b"\0" * 500_000, "B02_s1_w2.tif": b"\1" * 500_000}
    how = {"downloading": zipfile.ZIP_STORED, "unpacking": zipfile.ZIP_DEFLATED}[full_while]
    server.files[archive(FIRST)] = packed(images, how=how)
    status, said = command(largest_file=100_000).ended()
    assert status == 2
    assert [line for line in said if line.startswith("phenolens fetch:")] == said[-1:]
    assert "disk is full" in said[-1]
    kept = {"downloading": [], "unpacking": [archive(FIRST)]}[full_while]
    assert names_in(out) == sorted([*TABLES, *kept])
    fetch(FIRST)
    assert images_in(out / FIRST) == images
    assert names_in(out) == sorted([*TABLES, FIRST])


def test_the_official_image_table_names_55_plates_of_720_images(real_data):
    images = module.images_of_plates(real_data / "bbbc021" / "metadata" / "BBBC021_v1_image.csv.gz")
    assert len(images) == 55
    assert {len(names) for names in images.values()} == {720}
