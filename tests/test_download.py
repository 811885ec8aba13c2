"""One file over HTTP: what has arrived is never asked for again, and what is not the file never takes its name."""

import io
import json
import threading

import numpy as np
import pytest

from file_server import Fault, serving
from phenolens.core.errors import InputError, Interrupted, RunError
from phenolens.screens import download as module
from phenolens.screens.download import Patience, Version, download, look, partial_bytes

NAME = "plate.zip"
SIZE = 300_000
QUICK = Patience(tries=4, first_wait_s=0.001, timeout_s=5.0)


@pytest.fixture
def content(rng) -> bytes:
    """A file of random bytes, so that none can stand for another."""
    return rng.integers(0, 256, SIZE, dtype=np.uint8).tobytes()


@pytest.fixture
def server(content):
    """A server that has the file."""
    with serving(files={NAME: content}) as told:
        yield told


@pytest.fixture
def fetch(server, tmp_path):
    """Download the file; its bytes."""

    def act(*, patience: Patience = QUICK, stop: threading.Event | None = None, **how: object) -> bytes:
        path = tmp_path / NAME
        download(f"{server.address}/{NAME}", path, patience=patience, stop=stop or threading.Event(), **how)
        return path.read_bytes()

    return act


def left_in(folder) -> list[str]:
    """The files in a folder, hidden ones too."""
    return sorted(path.name for path in folder.iterdir())


def test_a_file_arrives_as_it_is_and_nothing_is_left_beside_it(server, fetch, content, tmp_path):
    assert fetch() == content
    assert server.sent[NAME] == SIZE
    assert left_in(tmp_path) == [NAME]


def test_a_connection_cut_several_times_sends_every_byte_once(server, fetch, content):
    server.faults[NAME] = [Fault(cut_after=n) for n in (100_000, 1, 50_000, 0, 70_000)]
    assert fetch() == content
    assert server.sent[NAME] == SIZE
    assert server.gets(NAME) == ["", *(f"bytes={n}-" for n in (100_000, 100_001, 150_001, 150_001, 220_001))]


def test_a_connection_that_is_reset_is_gone_on_from_what_arrived(server, fetch, content):
    server.faults[NAME] = [Fault(cut_after=100_000), Fault(cut_after=100_000, reset=True)]
    assert fetch() == content
    assert server.sent[NAME] < 2 * SIZE - 100_000  # the second hundred thousand may be lost on the way, not the first
    assert server.gets(NAME)[:2] == ["", "bytes=100000-"]


def test_last_modified_serves_where_the_etag_is_missing_or_weak(server, fetch, content):
    server.marks = ("weak ETag", "Last-Modified")
    server.faults[NAME] = [Fault(cut_after=200_000)]
    assert fetch() == content
    assert server.sent[NAME] == SIZE


def test_without_etag_and_date_a_cut_file_is_begun_anew(server, fetch, content):
    server.marks = ()
    server.faults[NAME] = [Fault(cut_after=200_000)]
    assert fetch() == content
    assert server.gets(NAME) == ["", ""]


def test_a_server_that_ignores_ranges_sends_it_all_again_and_the_bytes_are_right(server, fetch, content):
    server.faults[NAME] = [Fault(cut_after=100_000), Fault(ignore_range=True)]
    assert fetch() == content
    assert server.sent[NAME] == SIZE + 100_000


def test_a_file_that_changed_between_two_tries_is_begun_anew(server, fetch, content):
    server.faults[NAME] = [Fault(cut_after=100_000)] * 4
    stop = threading.Event()
    with pytest.raises(Interrupted):
        fetch(stop=stop, arrived=lambda n: stop.set() if n >= 200_000 else None)
    server.faults[NAME] = []
    changed = server.files[NAME] = content[::-1]
    n_gets = len(server.gets(NAME))
    assert fetch() == changed
    assert server.gets(NAME)[n_gets:] == ["bytes=200000-"]  # one request: the rest if it is the same, else all of it


@pytest.mark.parametrize("grown", [b"", b"and more"])
def test_a_part_of_a_changed_file_is_not_taken_from_a_server_that_ignores_if_range(server, fetch, content, grown):
    server.faults[NAME] = [Fault(cut_after=100_000), Fault(cut_after=100), Fault(ignore_if_range=True)]
    changed = content[::-1] + grown

    def change(n_bytes: int) -> None:
        if n_bytes == 100_100:
            server.files[NAME] = changed

    assert fetch(arrived=change) == changed
    assert server.gets(NAME) == ["", "bytes=100000-", "bytes=100100-", ""]


def test_a_file_that_became_shorter_than_what_arrived_is_begun_anew(server, fetch, content):
    server.faults[NAME] = [Fault(cut_after=100_000), Fault(ignore_if_range=True)]

    def change(n_bytes: int) -> None:
        if n_bytes == 100_000:
            server.files[NAME] = content[:5000]

    assert fetch(arrived=change) == content[:5000]


def test_a_length_that_is_too_large_is_never_taken_for_the_file(server, fetch, tmp_path):
    server.faults[NAME] = [Fault(said_length=SIZE + 10)] * 20
    with pytest.raises(RunError, match=r"cut after 300,000 of 300,010 bytes|shorter than what has arrived"):
        fetch()
    assert NAME not in left_in(tmp_path)


def test_a_transfer_that_is_compressed_unasked_is_refused(server, fetch, tmp_path):
    server.headers = {"Content-Encoding": "gzip"}
    with pytest.raises(InputError, match="sent compressed"):
        fetch()
    assert left_in(tmp_path) == []


def test_what_is_not_there_is_said_at_once(server, tmp_path):
    with pytest.raises(InputError, match=r"/no\.zip: the server has no such file \(404\)"):
        download(f"{server.address}/no.zip", tmp_path / "no.zip", patience=QUICK, stop=threading.Event())
    assert server.gets("no.zip") == [""]
    assert left_in(tmp_path) == []


def test_a_forbidden_file_is_not_asked_for_twice(server, fetch):
    server.faults[NAME] = [Fault(status=403)]
    with pytest.raises(InputError, match="the server answers 403"):
        fetch()
    assert len(server.gets(NAME)) == 1


def test_a_server_that_fails_twice_is_asked_again_after_growing_waits(server, fetch, content, capsys):
    server.faults[NAME] = [Fault(status=500), Fault(status=503)]
    assert fetch(patience=Patience(tries=3, first_wait_s=0.02)) == content
    said = capsys.readouterr().err.splitlines()
    assert [line.split("tried again in ")[1] for line in said] == ["0.02 s", "0.04 s"]
    assert "500 Internal Server Error" in said[0]


def test_retry_after_is_waited_for(server, fetch, content, capsys):
    server.headers, server.faults[NAME] = {"Retry-After": "1"}, [Fault(status=429)]
    assert fetch() == content
    assert "429 Too Many Requests; tried again in 1 s" in capsys.readouterr().err


def test_a_server_that_keeps_failing_is_given_up_and_what_arrived_is_kept(server, fetch, content, tmp_path):
    server.faults[NAME] = [Fault(cut_after=100_000)] + [Fault(status=500)] * 4
    with pytest.raises(RunError, match="4 times in a row without a new byte; 100,000 bytes are kept"):
        fetch()
    assert partial_bytes(tmp_path / NAME) == 100_000
    server.faults[NAME] = []
    assert fetch() == content
    assert server.sent[NAME] == SIZE


def test_tries_count_only_while_nothing_new_arrives(server, fetch, content):
    server.faults[NAME] = [Fault(cut_after=10_000)] * 20
    assert fetch(patience=Patience(tries=2, first_wait_s=0.001)) == content


def test_a_silent_connection_times_out_and_is_gone_on_from(server, fetch, content):
    server.faults[NAME] = [Fault(cut_after=100_000, hang=True)]
    assert fetch(patience=Patience(tries=2, first_wait_s=0.001, timeout_s=0.3)) == content
    assert server.sent[NAME] == SIZE


def test_a_server_that_is_not_there_is_given_up_in_one_line(tmp_path):
    with serving() as gone:
        url = f"{gone.address}/{NAME}"
    with pytest.raises(RunError, match=r"cannot be reached \(Connection refused\), 4 times in a row"):
        look(url, patience=QUICK, stop=threading.Event())


def test_a_stopped_download_keeps_what_arrived_and_writes_nothing_more(server, fetch, content, tmp_path):
    stop = threading.Event()
    server.faults[NAME] = [Fault(cut_after=120_000)]
    with pytest.raises(Interrupted):
        fetch(stop=stop, arrived=lambda n: stop.set() if n == 120_000 else None)
    assert partial_bytes(tmp_path / NAME) == 120_000
    assert fetch() == content
    assert server.sent[NAME] == SIZE


def test_a_kill_between_the_last_byte_and_the_name_asks_for_nothing_again(server, fetch, content, tmp_path):
    url, version = f"{server.address}/{NAME}", server.mark(NAME)["ETag"]
    (tmp_path / f".{NAME}.partial").write_bytes(content)
    kept = {"url": url, "length": SIZE, "mark": version}
    (tmp_path / f".{NAME}.partial.json").write_text(json.dumps(kept))
    assert fetch() == content
    assert server.asked == []


@pytest.mark.parametrize("kept", ["", "[]", '{"url": "http://other/plate.zip", "length": 300000, "mark": "x"}'])
def test_bytes_of_nobody_knows_what_are_not_gone_on_from(server, fetch, content, tmp_path, kept):
    (tmp_path / f".{NAME}.partial").write_bytes(b"\0" * 1000)
    (tmp_path / f".{NAME}.partial.json").write_text(kept)
    assert fetch() == content
    assert server.gets(NAME) == [""]


def test_what_fails_its_check_never_takes_its_name(fetch, tmp_path):
    def refuse(path):
        raise InputError(f"{path.stat().st_size} bytes of nonsense")

    with pytest.raises(InputError, match="300000 bytes of nonsense"):
        fetch(check=refuse)
    assert left_in(tmp_path) == []


def test_length_and_version_are_known_before_anything_is_sent(server):
    version = look(f"{server.address}/{NAME}", patience=QUICK, stop=threading.Event())
    assert version == Version(SIZE, server.mark(NAME)["ETag"])
    assert server.sent == {}


def test_a_redirection_leads_only_to_the_web(server, fetch, tmp_path):
    target = tmp_path / "secret"
    target.write_text("secret")
    for where in (f"file://{target}", "ftp://127.0.0.1/x"):
        server.headers, server.faults[NAME] = {"Location": where}, [Fault(status=302)]
        with pytest.raises(InputError, match=r"expected http or https|the server answers 302 Found, expected the file"):
            fetch()
    assert left_in(tmp_path) == ["secret"]


def test_a_redirection_to_another_place_of_the_web_is_followed_from_where_it_stood(server, fetch, content):
    server.faults[NAME] = [Fault(cut_after=100_000), Fault(status=302)]
    server.files["elsewhere"] = content
    server.headers = {"Location": f"{server.address}/elsewhere"}
    assert fetch() == content
    assert server.gets("elsewhere") == ["bytes=100000-"]


def test_https_is_never_left_for_http():
    request = module.urllib.request.Request("https://example.org/x")
    with pytest.raises(InputError, match=r"leads to http://example\.org/x, expected https"):
        module._OnlyWeb().redirect_request(request, io.BytesIO(), 302, "", {}, "http://example.org/x")
