"""One blinded test in one SQLite file: pictures, key, assessors, answers.

An answer is on the disk before the next picture is sent (write-ahead log, synchronous FULL). Code that serves
assessors opens the file blind: SQLite itself then refuses to read the key.
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
from phenolens.core.files import write_whole

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32: without I, L, O and U, which people confuse
CODE_CHARACTERS = 20  # 5 bits each: 100 bits
NAME_CHARACTERS = 60
MAX_ASSESSORS = 500
VERSION = 2  # of the tables below
APPLICATION_ID = 0x50684C41  # "PhLA" in SQLite's header
BUSY_SECONDS = 30.0  # how long to wait for another process that writes

TABLES = f"""
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
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


def new_code() -> str:
    """An assessor's code, without hyphens: 100 bits of the operating system's random source."""
    return "".join(secrets.choice(ALPHABET) for _ in range(CODE_CHARACTERS))


def plain_code(typed: str) -> str:
    """The stored form of a typed code: capitals, no hyphens or spaces, O as 0, I and L as 1."""
    return re.sub(r"[\s-]", "", typed).upper().translate(str.maketrans("OIL", "011"))


def shown_code(code: str) -> str:
    """A code in groups of five characters."""
    return "-".join(re.findall(".{1,5}", code))


def checked_name(name: str) -> str:
    """An assessor's name without surrounding spaces; InputError when it is empty, too long or not printable."""
    name = name.strip()
    if not name or len(name) > NAME_CHARACTERS or not name.isprintable():
        raise InputError(f"assessor {name[:NAME_CHARACTERS]!r}: expected 1 to {NAME_CHARACTERS} printable characters")
    return name


@dataclass(frozen=True)
class Picture:
    """A picture and its key."""

    png: bytes
    is_synthetic: bool
    cell_id: str
    treatment: str
    mechanism: str  # `control` for controls, empty where unknown
    shown: str  # the channels in the picture


@dataclass(frozen=True)
class Assessor:
    """A person who judges, their code and their progress."""

    number: int
    name: str
    code: str
    n_answers: int


@dataclass(frozen=True)
class Turn:
    """The picture that an assessor judges now."""

    item: int  # its number
    picture_id: str
    place: int  # from 1
    n: int  # pictures in all


class AssessmentFile:
    """The file of a blinded test; each call opens its own connection, so threads and processes may share the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, pictures: Sequence[Picture], about: dict[str, Any]) -> "AssessmentFile":
        """Write a new file, whole or not at all; each picture gets a random name."""
        rows = [(item, secrets.token_hex(16), picture.png) for item, picture in enumerate(pictures)]
        key = [(item, *astuple(picture)[1:]) for item, picture in enumerate(pictures)]
        with write_whole(path) as file, closing(sqlite3.connect(file.name)) as database:
            database.executescript(TABLES)
            database.execute("INSERT INTO about VALUES (?)", (json.dumps(about),))
            database.executemany("INSERT INTO pictures VALUES (?, ?, ?)", rows)
            database.executemany("INSERT INTO key VALUES (?, ?, ?, ?, ?, ?)", key)
            database.commit()
        return cls(path)

    @property
    def name(self) -> str:
        """The name of the test."""
        return self.path.stem

    def about(self) -> dict[str, Any]:
        """The settings, and the run and crops that the pictures come from."""
        content: dict[str, Any] = json.loads(self._row("SELECT content FROM about")[0])
        return content

    def n_pictures(self) -> int:
        """The number of pictures of both kinds."""
        return int(self._row("SELECT count(*) FROM pictures")[0])

    # For assessors: opened blind.

    def assessor(self, code: str) -> Assessor | None:
        """The assessor with this code; None when nobody in this file has it."""
        return next((found for found in self._assessors("WHERE code = ?", plain_code(code))), None)

    def turn(self, assessor: int) -> Turn | None:
        """The first picture in the assessor's order that has no answer; None when all have one."""
        with self._open() as database:
            return _turn(database, assessor)

    def current_picture(self, assessor: int, picture_id: str) -> bytes | None:
        """The picture as PNG, with the time noted; None unless it is the assessor's current one."""
        with self._open() as database:
            turn = _turn(database, assessor)
            if turn is None or turn.picture_id != picture_id:
                return None
            (png,) = database.execute("SELECT png FROM pictures WHERE item = ?", (turn.item,)).fetchone()
            database.execute("PRAGMA synchronous = NORMAL")  # a power cut may lose this time, never an answer
            database.execute("INSERT OR REPLACE INTO showings VALUES (?, ?, ?)", (assessor, turn.item, time.time()))
            return bytes(png)

    def answer(self, assessor: int, picture_id: str, *, synthetic: bool) -> bool:
        """Store an answer; False, and nothing is stored, unless the picture is the current one.

        So an answer that is sent twice counts once, none can be changed, and none can be given ahead.
        """
        with self._open() as database, transaction(database):
            turn = _turn(database, assessor)
            if turn is None or turn.picture_id != picture_id:
                return False
            now = time.time()
            database.execute(
                "INSERT INTO answers VALUES (:assessor, :item, :synthetic, :now, (SELECT :now - shown_at FROM showings "
                "WHERE assessor = :assessor AND item = :item AND shown_at <= :now))",
                {"assessor": assessor, "item": turn.item, "synthetic": synthetic, "now": now},
            )
        return True

    # For the owner.

    def assessors(self) -> list[Assessor]:
        """All assessors, by number."""
        return self._assessors("")

    def add_assessors(self, names: Sequence[str]) -> list[Assessor]:
        """Add assessors, each with a code and a random order of the pictures; those already there stay as they are."""
        wanted = [checked_name(name) for name in names]
        with self._open() as database, transaction(database):
            items = [item for (item,) in database.execute("SELECT item FROM pictures")]
            present = {name for (name,) in database.execute("SELECT name FROM assessors")}
            if len(present | set(wanted)) > MAX_ASSESSORS:
                raise InputError(f"{len(present | set(wanted))} assessors: expected at most {MAX_ASSESSORS}")
            for name in dict.fromkeys(name for name in wanted if name not in present):
                row = database.execute("INSERT INTO assessors (name, code) VALUES (?, ?)", (name, new_code()))
                secrets.SystemRandom().shuffle(items)  # no seed that somebody could know
                places = [(row.lastrowid, place, item) for place, item in enumerate(items, start=1)]
                database.executemany("INSERT INTO places VALUES (?, ?, ?)", places)
        return self.assessors()

    def answers(self) -> pd.DataFrame:
        """All answers with their key, a row per answer: ANSWERS, `cell_id`, `answered_at` (seconds since 1970)."""
        with self._open(blind=False) as database:
            rows = database.execute(
                "SELECT name, item, treatment, mechanism, shown, is_synthetic, said_synthetic, seconds, cell_id, "
                "answered_at "
                "FROM answers JOIN assessors USING (assessor) JOIN key USING (item) ORDER BY assessor, answered_at"
            ).fetchall()
        table = pd.DataFrame(rows, columns=[*ANSWERS, "cell_id", "answered_at"])
        return table.astype({"is_synthetic": bool, "said_synthetic": bool, "seconds": float, "item": int})

    def pictures(self, items: Sequence[int]) -> list[Picture]:
        """Pictures with their key, by their numbers from 0."""
        query = (
            "SELECT png, is_synthetic, cell_id, treatment, mechanism, shown "
            "FROM pictures JOIN key USING (item) WHERE item = ?"
        )
        with self._open(blind=False) as database:
            rows = [database.execute(query, (int(item),)).fetchone() for item in items]
        return [Picture(bytes(png), bool(synthetic), *rest) for png, synthetic, *rest in rows]

    def own_score(self, assessor: int) -> tuple[int, int]:
        """How many of an assessor's answers are correct, and how many there are."""
        query = (
            "SELECT coalesce(sum(said_synthetic = is_synthetic), 0), count(*) "
            "FROM answers JOIN key USING (item) WHERE assessor = ?"
        )
        n_correct, n = self._row(query, assessor, blind=False)
        return n_correct, n

    def _assessors(self, where: str, *values: str) -> list[Assessor]:
        with self._open() as database:
            rows = database.execute(
                "SELECT assessor, name, code, (SELECT count(*) FROM answers WHERE answers.assessor = "
                f"assessors.assessor) FROM assessors {where} ORDER BY assessor",
                values,
            ).fetchall()
        return [Assessor(*row) for row in rows]

    def _row(self, query: str, *values: object, blind: bool = True) -> tuple[Any, ...]:
        with self._open(blind=blind) as database:
            row: tuple[Any, ...] = database.execute(query, values).fetchone()
        return row

    @contextmanager
    def _open(self, *, blind: bool = True) -> Iterator[sqlite3.Connection]:
        if not self.path.is_file():
            raise InputError(f"{self.path}: no longer there; set the assessment up again")
        try:
            with closing(sqlite3.connect(self.path, isolation_level=None, timeout=BUSY_SECONDS)) as database:
                _check(database, self.path)
                database.execute("PRAGMA journal_mode = WAL")
                database.execute("PRAGMA synchronous = FULL")
                if blind:
                    database.set_authorizer(_without_key)
                yield database
        except sqlite3.Error as error:
            raise InputError(f"{self.path}: {error}; confirmed answers are kept") from error


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """One transaction: all of it is written, or nothing."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")


def _turn(database: sqlite3.Connection, assessor: int) -> Turn | None:
    row = database.execute(
        "SELECT item, picture_id, place, (SELECT count(*) FROM pictures) "
        "FROM places JOIN pictures USING (item) WHERE assessor = ? AND NOT EXISTS "
        "(SELECT 1 FROM answers WHERE answers.assessor = places.assessor AND answers.item = places.item) "
        "ORDER BY place LIMIT 1",
        (assessor,),
    ).fetchone()
    return None if row is None else Turn(*row)


def _check(database: sqlite3.Connection, path: Path) -> None:
    (application,) = database.execute("PRAGMA application_id").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise InputError(f"{path}: not a blinded test of phenolens; move it out of this folder")
    if version != VERSION:
        raise InputError(
            f"{path}: written by another release of phenolens (version {version}, expected {VERSION}); read it with "
            "that release, and move it out of this folder"
        )


def _without_key(action: int, table: str | None, *rest: str | None) -> int:
    return sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_READ and table == "key" else sqlite3.SQLITE_OK
