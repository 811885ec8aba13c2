"""Where blinded assessments are kept: what is confirmed is on the disk, and the key cannot be read blind."""

import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from blinded_tests import TOKEN, kinds_by_picture_id, made_up, made_up_pictures
from phenolens.blinded_test.compute import assessments, find_assessor, results
from phenolens.blinded_test.database import ALPHABET, AssessmentFile, new_code, plain_code, shown_code
from phenolens.core.errors import InputError
from phenolens.study import Study


@pytest.fixture
def study(tmp_path):
    return Study.create(tmp_path / "study")


def judge_all(file, number, said):
    """Answer every picture as `said` (picture_id to synthetic)."""
    while turn := file.turn(number):
        file.current_picture(number, turn.picture_id)
        assert file.answer(number, turn.picture_id, synthetic=said(turn.picture_id))


def test_answers_are_kept_with_the_key_of_their_picture(study):
    file = made_up(study, "anna", "ben")
    kinds = kinds_by_picture_id(file)
    judge_all(file, 1, kinds.__getitem__)
    judge_all(file, 2, lambda picture: not kinds[picture])
    table = file.answers()
    right = table["said_synthetic"] == table["is_synthetic"]
    assert right.groupby(table["assessor"]).agg(["sum", "size"]).to_dict("index") == {
        "anna": {"sum": 12, "size": 12},
        "ben": {"sum": 0, "size": 12},
    }
    assert (file.own_score(1), file.own_score(2)) == ((12, 12), (0, 12))
    assert results(file).passed.value == 0.5
    assert ((table["seconds"] >= 0) & (table["seconds"] < 60)).all()


def test_each_assessor_sees_every_picture_once_in_an_order_of_their_own(study):
    file = made_up(study, "anna", "ben", n=10)
    seen = {1: [], 2: []}
    for number, pictures in seen.items():
        judge_all(file, number, lambda picture, pictures=pictures: pictures.append(picture) or True)
    assert set(seen[1]) == set(seen[2]) == set(kinds_by_picture_id(file))
    assert len(seen[1]) == len(seen[2]) == 20
    assert seen[1] != seen[2]


def test_an_answer_counts_once_and_only_when_it_is_its_turn(study):
    file = made_up(study, "anna")
    first = file.turn(1)
    later = next(picture for picture in kinds_by_picture_id(file) if picture != first.picture_id)
    assert file.answer(1, later, synthetic=True) is False
    assert file.answer(1, first.picture_id, synthetic=True) is True
    assert file.answer(1, first.picture_id, synthetic=False) is False
    assert file.answers()["said_synthetic"].tolist() == [True]


def test_a_picture_is_sent_only_while_it_is_its_turn(study):
    file = made_up(study, "anna")
    first = file.turn(1).picture_id
    later = next(picture for picture in kinds_by_picture_id(file) if picture != first)
    assert file.current_picture(1, first) is not None
    assert file.current_picture(1, later) is None
    file.answer(1, first, synthetic=True)
    assert file.current_picture(1, first) is None


def test_an_answer_to_a_picture_that_was_never_sent_has_no_time(study):
    file = made_up(study, "anna")
    file.answer(1, file.turn(1).picture_id, synthetic=True)
    assert file.answers()["seconds"].isna().tolist() == [True]


def test_what_serves_assessors_cannot_read_the_key(study):
    file = made_up(study, "anna")
    for question in ("SELECT is_synthetic FROM key", "SELECT * FROM pictures JOIN key USING (item)"):
        with pytest.raises(InputError, match="prohibited"), file._open() as database:
            database.execute(question)
    with file._open(blind=False) as database:
        assert len(database.execute("SELECT is_synthetic FROM key").fetchall()) == 12


def test_codes_are_a_hundred_random_bits_and_are_read_as_people_write_them():
    codes = {new_code() for _ in range(1000)}
    assert len(codes) == 1000
    assert len(ALPHABET) ** len(min(codes)) == 2**100
    code = new_code()
    assert plain_code(shown_code(code)) == plain_code(f" {shown_code(code).lower()} ") == code
    assert plain_code("oO0-iIlL1") == "000" + "11111"


def test_an_assessor_is_found_by_the_code_alone_over_all_assessments(study):
    first, second = made_up(study, "anna", name="a"), made_up(study, "anna", "ben", name="b")
    file, assessor = find_assessor(study, second.assessors()[1].code)
    assert (file.name, assessor.name) == ("b", "ben")
    assert find_assessor(study, first.assessors()[0].code)[0].name == "a"
    assert find_assessor(study, new_code()) is None


def test_assessors_are_added_without_touching_those_there(study):
    file = made_up(study, "anna")
    judge_all(file, 1, lambda picture: True)
    before = file.assessors()[0]
    file.add_assessors(["ben", "anna", "ben"])
    assert [person.name for person in file.assessors()] == ["anna", "ben"]
    assert file.assessors()[0] == before
    for wrong in ("", "  ", "x" * 61, "a\nb", "a\0b"):
        with pytest.raises(InputError, match="printable characters"):
            file.add_assessors([wrong])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.write_bytes(b"no database" * 100), "not a database"),
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), "malformed|no such table|a.sqlite|round-1.sqlite"),
        (lambda path: path.write_bytes(b""), "round-1.sqlite"),
        (lambda path: path.unlink(), "round-1.sqlite"),
    ],
)
def test_a_damaged_file_is_told_in_one_line(study, damage, said):
    file = made_up(study, "anna")
    damage(file.path)
    with pytest.raises(InputError, match=said) as caught:
        file.assessors()
    assert "\n" not in str(caught.value)


def test_a_file_of_another_version_is_refused(study):
    file = made_up(study, "anna")
    with closing(sqlite3.connect(file.path)) as database:
        database.execute("PRAGMA user_version = 7")
    with pytest.raises(InputError, match=r"round-1.sqlite.*version 7, expected 2"):
        file.turn(1)


def test_a_file_that_could_not_be_written_whole_is_not_there(study):
    pictures = made_up_pictures()
    with pytest.raises(sqlite3.IntegrityError):
        AssessmentFile.create(
            study.assessments_folder / "a.sqlite", [*pictures, replace(pictures[0], cell_id=None)], {}
        )
    assert list(study.assessments_folder.iterdir()) == []
    assert assessments(study) == {}


def test_fifty_assessors_at_once_lose_no_answer(study):
    file = made_up(study, *(f"assessor {number}" for number in range(50)), n=1)
    errors = []

    def work(number):
        try:
            judge_all(file, number, lambda picture: number % 2 == 0)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 51)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    table = file.answers()
    assert errors == []
    assert len(table) == 50 * 2
    assert not table.duplicated(["assessor", "item"]).any()


class Server:
    """`phenolens assess` in a process of its own."""

    def __init__(self, study):
        command = [sys.executable, "-m", "phenolens.cli", "assess", str(study.folder), "--port", "0", "--token", TOKEN]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        lines = []
        for line in self.process.stderr:
            lines.append(line)
            if "Ctrl+C" in line:
                break
        self.base = re.search(r"(http://127\.0\.0\.1:\d+)/owner", "".join(lines))[1]
        self.said = "".join(lines)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()
        return self.process.returncode


def assert_of_this_machine_alone(port):
    """The system's own table of sockets says under which address it listens."""
    sockets = Path("/proc/net/tcp").read_text()
    assert f"0100007F:{port:04X} 00000000:0000 0A" in sockets
    assert f"00000000:{port:04X}" not in sockets


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="kill -9 is a signal of POSIX, /proc is Linux")
def test_nothing_is_lost_when_the_server_is_killed_between_two_clicks(study):
    file = made_up(study, "anna", n=6)
    code = file.assessors()[0].code
    given = {}
    for _ in range(2):
        server = Server(study)
        assert_of_this_machine_alone(int(server.base.rpartition(":")[2]))
        with httpx.Client(base_url=server.base) as client:
            assert client.post("/begin", data={"code": code}).status_code == 303
            for _ in range(3):
                page = client.get("/cell").text
                picture = re.search(r'src="/pictures/(\w+)"', page)[1]
                assert picture not in given  # it goes on where it stood
                client.get(f"/pictures/{picture}")
                given[picture] = len(given) % 2 == 0
                said = "synthetic" if given[picture] else "real"
                assert client.post("/answer", data={"picture": picture, "said": said}).status_code == 303
            assert server.kill() == -signal.SIGKILL  # the moment after an answer was confirmed
    with closing(sqlite3.connect(file.path)) as database:
        rows = database.execute("SELECT picture_id, said_synthetic FROM answers JOIN pictures USING (item)").fetchall()
    assert {picture: bool(said) for picture, said in rows} == given
    assert len(given) == 6
    assert file.turn(1).place == 7


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a signal of POSIX")
def test_a_server_killed_while_answers_stream_in_keeps_every_confirmed_one(study):
    file = made_up(study, *(f"a{number}" for number in range(6)), n=40)
    server, confirmed, killed = Server(study), [], threading.Event()

    def work(person):
        with httpx.Client(base_url=server.base) as client:
            try:
                client.post("/begin", data={"code": person.code})
                while not killed.is_set():
                    picture = re.search(r'src="/pictures/(\w+)"', client.get("/cell").text)[1]
                    if client.post("/answer", data={"picture": picture, "said": "real"}).status_code == 303:
                        confirmed.append((person.name, picture))
            except (httpx.HTTPError, TypeError):
                return

    threads = [threading.Thread(target=work, args=(person,)) for person in file.assessors()]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 20
    while len(confirmed) < 40 and time.monotonic() < deadline:
        time.sleep(0.01)
    server.kill()
    killed.set()
    for thread in threads:
        thread.join()
    with closing(sqlite3.connect(file.path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        rows = database.execute(
            "SELECT name, picture_id FROM answers JOIN pictures USING (item) JOIN assessors USING (assessor)"
        ).fetchall()
    assert len(confirmed) >= 40
    assert set(confirmed) <= set(rows)
