"""One blinded assessment in one SQLite file: pictures, key, assessors, answers.

An answer is on the disk before anybody is told that it was taken (write-ahead log, synchronous FULL). What serves
assessors opens the file blind: SQLite itself refuses to read the key there.
"""

import json
import re
import secrets
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from phenolens.blinded_test.statistics import ANSWERS
from phenolens.core.errors import InputError

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's: no I, L, O, U, which people mistake
CODE_LETTERS = 20  # 100 bits
NAME_CHARACTERS = 60


def new_code() -> str:
    """A new assessor's code, without the hyphens it is shown with."""
    return "".join(secrets.choice(ALPHABET) for _ in range(CODE_LETTERS))


def plain_code(typed: str) -> str:
    """A code as it is kept, from what a person typed: any case, with hyphens or spaces, O for 0, I or L for 1."""
    return re.sub(r"[\s-]", "", typed).upper().translate(str.maketrans("OIL", "011"))


def shown_code(code: str) -> str:
    """A code in groups of five, as people read it."""
    return "-".join(re.findall(".{1,5}", code))


def checked_name(name: str) -> str:
    """An assessor's name without spaces around it; InputError when nothing is left or it is overlong or unprintable."""
    name = name.strip()
    if not name or len(name) > NAME_CHARACTERS or not name.isprintable():
        raise InputError(f"assessor {name[:NAME_CHARACTERS]!r}: expected 1 to {NAME_CHARACTERS} printable characters")
    return name


VERSION = 2  # of the tables below
APPLICATION = 0x50684C41  # "PhLA": what SQLite's header says that the file is
SECONDS_TO_WAIT = 30.0  # for another process's write
MOST_ASSESSORS = 500

TABLES = """
CREATE TABLE about (content TEXT NOT NULL);
CREATE TABLE pictures (item INTEGER PRIMARY KEY, picture_id TEXT NOT NULL UNIQUE, png BLOB NOT NULL);
CREATE TABLE key (
    item INTEGER PRIMARY KEY REFERENCES pictures, is_synthetic INTEGER NOT NULL, cell_id TEXT NOT NULL,
    treatment TEXT NOT NULL, mechanism TEXT NOT NULL, shown TEXT NOT NULL
);
CREATE TABLE assessors (assessor INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, code TEXT NOT NULL UNIQUE);
CREATE TABLE places (
    assessor INTEGER NOT NULL REFERENCES assessors, place INTEGER NOT NULL, item INTEGER NOT NULL REFERENCES pictures,
    PRIMARY KEY (assessor, place), UNIQUE (assessor, item)
) WITHOUT ROWID;
CREATE TABLE showings (
    assessor INTEGER NOT NULL, item INTEGER NOT NULL, shown_at REAL NOT NULL, PRIMARY KEY (assessor, item)
) WITHOUT ROWID;
CREATE TABLE answers (
    assessor INTEGER NOT NULL, item INTEGER NOT NULL, said_synthetic INTEGER NOT NULL, answered_at REAL NOT NULL,
    seconds REAL, PRIMARY KEY (assessor, item)
) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Picture:
    """A picture and its key."""

    png: bytes
    is_synthetic: bool
    cell_id: str
    treatment: str
    mechanism: str  # `control` of the controls, empty where it is not known
    shown: str  # the channels that it shows


@dataclass(frozen=True)
class Assessor:
    """Who answers, and the code that lets them."""

    number: int
    name: str
    code: str
    n_answers: int


@dataclass(frozen=True)
class Turn:
    """The picture that an assessor is to judge now."""

    picture_id: str
    place: int  # from 1
    n: int  # pictures in all


class AssessmentFile:
    """An assessment's file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, pictures: Sequence[Picture], about: dict[str, Any]) -> "AssessmentFile":
        """Write a new file with these pictures, in their order, under names drawn by chance; whole or not at all."""
        partial = path.with_name(f".{path.name}.partial")
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)
        try:
            with closing(sqlite3.connect(partial, isolation_level=None)) as database, written(database):
                for statement in TABLES.split(";"):
                    database.execute(statement)
                database.execute(f"PRAGMA application_id = {APPLICATION}")
                database.execute(f"PRAGMA user_version = {VERSION}")
                database.execute("INSERT INTO about VALUES (?)", (json.dumps(about),))
                rows = [(item, secrets.token_hex(16), picture.png) for item, picture in enumerate(pictures)]
                key = [(item, *astuple(picture)[1:]) for item, picture in enumerate(pictures)]
                database.executemany("INSERT INTO pictures VALUES (?, ?, ?)", rows)
                database.executemany("INSERT INTO key VALUES (?, ?, ?, ?, ?, ?)", key)
            partial.replace(path)
        except sqlite3.Error as error:
            raise InputError(f"{path}: cannot be written ({error}); nothing was kept") from error
        finally:
            partial.unlink(missing_ok=True)
        return cls(path)

    @property
    def name(self) -> str:
        """The assessment's name."""
        return self.path.stem

    def about(self) -> dict[str, Any]:
        """What the assessment was made from, and its settings."""
        with self._open() as database:
            content = json.loads(database.execute("SELECT content FROM about").fetchone()[0])
        assert isinstance(content, dict)
        return content

    # What serves assessors: blind.

    def assessor(self, code: str) -> Assessor | None:
        """The assessor with this code, None when nobody here has it."""
        return next((found for found in self._assessors("WHERE code = ?", plain_code(code))), None)

    def turn(self, assessor: int) -> Turn | None:
        """The first picture in the assessor's own order that has no answer yet; None when all have."""
        with self._open() as database:
            return _turn(database, assessor)

    def shown(self, assessor: int, picture_id: str) -> bytes | None:
        """The picture as PNG, noted as shown now; None unless it is the assessor's turn to see this one."""
        with self._open() as database:
            turn = _turn(database, assessor)
            if turn is None or turn.picture_id != picture_id:
                return None
            item, png = database.execute(
                "SELECT item, png FROM pictures WHERE picture_id = ?", (picture_id,)
            ).fetchone()
            database.execute("PRAGMA synchronous = NORMAL")  # a power cut may take a time with it, never an answer
            with written(database):
                database.execute("INSERT OR REPLACE INTO showings VALUES (?, ?, ?)", (assessor, item, time.time()))
            return bytes(png)

    def answer(self, assessor: int, picture_id: str, *, synthetic: bool) -> bool:
        """Keep an answer for good; False, and nothing is kept, unless it is this picture's turn.

        So an answer that is sent twice counts once, none can be changed, and none can be given ahead.
        """
        with self._open() as database, written(database):
            turn = _turn(database, assessor)
            if turn is None or turn.picture_id != picture_id:
                return False
            now = time.time()
            database.execute(
                "INSERT INTO answers SELECT ?, item, ?, ?, "
                "(SELECT ? - shown_at FROM showings WHERE assessor = ? AND item = pictures.item AND shown_at <= ?) "
                "FROM pictures WHERE picture_id = ?",
                (assessor, synthetic, now, now, assessor, now, picture_id),
            )
        return True

    # What serves the owner.

    def assessors(self) -> list[Assessor]:
        """All assessors, by number."""
        return self._assessors("")

    def add_assessors(self, names: Sequence[str]) -> list[Assessor]:
        """Add these, each with a code of their own and the pictures in an order of their own; who is there stays.

        InputError for an empty or overlong name.
        """
        wanted = [checked_name(name) for name in names]
        with self._open() as database, written(database):
            items = [item for (item,) in database.execute("SELECT item FROM pictures")]
            known = {name: number for number, name in database.execute("SELECT assessor, name FROM assessors")}
            if len(known.keys() | set(wanted)) > MOST_ASSESSORS:
                raise InputError(f"{len(known.keys() | set(wanted))} assessors: expected at most {MOST_ASSESSORS}")
            for name in dict.fromkeys(name for name in wanted if name not in known):
                row = database.execute("INSERT INTO assessors (name, code) VALUES (?, ?)", (name, new_code()))
                secrets.SystemRandom().shuffle(items)  # not by a seed that somebody could know
                places = [(row.lastrowid, place, item) for place, item in enumerate(items, start=1)]
                database.executemany("INSERT INTO places VALUES (?, ?, ?)", places)
        return self.assessors()

    def answers(self) -> pd.DataFrame:
        """All answers with their key, a row an answer: ANSWERS, `cell_id` and `answered_at` (seconds since 1970)."""
        with self._open(blind=False) as database:
            rows = database.execute(
                "SELECT name, item, treatment, mechanism, shown, is_synthetic, said_synthetic, seconds, cell_id, "
                "answered_at "
                "FROM answers JOIN assessors USING (assessor) JOIN key USING (item) ORDER BY assessor, answered_at"
            ).fetchall()
        table = pd.DataFrame(rows, columns=[*ANSWERS, "cell_id", "answered_at"])
        return table.astype({"is_synthetic": bool, "said_synthetic": bool, "seconds": float, "item": int})

    def pictures(self, items: Sequence[int]) -> list[Picture]:
        """Pictures with their key."""
        with self._open(blind=False) as database:
            rows = [
                database.execute(
                    "SELECT png, is_synthetic, cell_id, treatment, mechanism, shown "
                    "FROM pictures JOIN key USING (item) WHERE item = ?",
                    (int(item),),
                ).fetchone()
                for item in items
            ]
        return [Picture(bytes(png), bool(synthetic), *rest) for png, synthetic, *rest in rows]

    def n_pictures(self) -> int:
        """How many pictures there are, of both kinds."""
        with self._open() as database:
            return int(database.execute("SELECT count(*) FROM pictures").fetchone()[0])

    def own_score(self, assessor: int) -> tuple[int, int]:
        """How many of an assessor's answers are right, and how many there are."""
        with self._open(blind=False) as database:
            right, n = database.execute(
                "SELECT coalesce(sum(said_synthetic = is_synthetic), 0), count(*) "
                "FROM answers JOIN key USING (item) WHERE assessor = ?",
                (assessor,),
            ).fetchone()
        return int(right), int(n)

    def _assessors(self, where: str, *values: str) -> list[Assessor]:
        with self._open() as database:
            rows = database.execute(
                "SELECT assessor, name, code, (SELECT count(*) FROM answers WHERE answers.assessor = "
                f"assessors.assessor) FROM assessors {where} ORDER BY assessor",
                values,
            ).fetchall()
        return [Assessor(*row) for row in rows]

    @contextmanager
    def _open(self, *, blind: bool = True) -> Iterator[sqlite3.Connection]:
        """A connection of its own for each use: threads and processes share nothing but the file."""
        if not self.path.is_file():
            raise InputError(f"{self.path}: not there any more; set the assessment up again")
        try:
            with closing(sqlite3.connect(self.path, isolation_level=None, timeout=SECONDS_TO_WAIT)) as database:
                _check(database, self.path)
                database.execute("PRAGMA journal_mode = WAL")
                database.execute("PRAGMA synchronous = FULL")
                if blind:
                    database.set_authorizer(_without_key)
                yield database
        except sqlite3.Error as error:
            raise InputError(f"{self.path}: {error}; answers that were confirmed are kept") from error


@contextmanager
def written(database: sqlite3.Connection) -> Iterator[None]:
    """One transaction: all of it on the disk at the end, or nothing."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")


def _turn(database: sqlite3.Connection, assessor: int) -> Turn | None:
    row = database.execute(
        "SELECT picture_id, place FROM places JOIN pictures USING (item) WHERE assessor = ? AND NOT EXISTS "
        "(SELECT 1 FROM answers WHERE answers.assessor = places.assessor AND answers.item = places.item) "
        "ORDER BY place LIMIT 1",
        (assessor,),
    ).fetchone()
    if row is None:
        return None
    (n,) = database.execute("SELECT count(*) FROM places WHERE assessor = ?", (assessor,)).fetchone()
    return Turn(row[0], row[1], n)


def _check(database: sqlite3.Connection, path: Path) -> None:
    application, version = (
        database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
    )
    if application != APPLICATION:
        raise InputError(f"{path}: no assessment of phenolens; move it out of that folder")
    if version != VERSION:
        raise InputError(
            f"{path}: an assessment of version {version}, expected {VERSION}; its results are said by the phenolens it "
            "is of. Move it out of that folder to go on with others"
        )


def _without_key(action: int, first: str | None, *rest: str | None) -> int:
    return sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_READ and first == "key" else sqlite3.SQLITE_OK
