"""Which treatments are candidates of which, and which scores a screen allows, from its metadata alone.

M rows (treatments or wells), K different texts in the mechanism column. A text names one mechanism, or several with a
separator between them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from itertools import chain, combinations, product
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from phenolens.core.names import known_mechanism
from phenolens.profiles.profiles import JOINED_BY
from phenolens.screens.screen import treatment_name

if TYPE_CHECKING:
    from scipy.sparse import csr_array

HeldOut = Literal["compound", "batch", "plate", "well"]
NSC: tuple[HeldOut, ...] = ("compound",)
NSCB: tuple[HeldOut, ...] = ("compound", "batch")
NAMED: dict[str, tuple[HeldOut, ...]] = {"NSC": NSC, "NSCB": NSCB}
SEVERAL = ("batch", "plate")  # a treatment can have several of these, joined by |
MECHANISM = "column moa of the plate map; --mechanism of a table"  # where a message says that it is given
BATCH = "column batch of the plate map; --batch of a table"
SEPARATORS = ("|", ";", ",")  # that mechanism lists are written with


def mechanism_names(text: str, separator: str = "") -> frozenset[str]:
    """The mechanisms that a text names."""
    names = text.split(separator) if separator else [text]
    return frozenset(map(known_mechanism, names)) - {""}


def sharing(texts: Sequence[str], separator: str = "") -> np.ndarray:
    """Which texts name a common mechanism: (K, K) bool."""
    if not separator:
        return np.eye(len(texts), dtype=bool)
    named = [mechanism_names(text, separator) for text in texts]
    code = {name: place for place, name in enumerate(sorted(frozenset().union(*named)))}
    members = np.zeros((len(texts), len(code)), dtype=np.float32)
    for row, names in enumerate(named):
        members[row, [code[name] for name in names]] = 1
    return members @ members.T > 0


def list_separator(texts: Collection[str]) -> str:
    """The separator of texts that look like lists of mechanisms; empty where none does.

    A text looks like a list where it holds `|`, or where another text names one of its parts, alone or in a list.
    """
    parts = {text: {part.strip() for part in re.split("[|;,]", text)} for text in texts}
    n_texts = Counter(part for of_text in parts.values() for part in of_text)
    for separator in SEPARATORS:
        lists = [text for text in texts if len(mechanism_names(text, separator)) > 1]
        if lists and (separator == JOINED_BY or any(n_texts[part] > 1 for text in lists for part in parts[text])):
            return separator
    return ""


class Candidates:
    """Which of M rows (treatments or wells) are candidates of each other: those that share nothing held out.

    Memory grows with M, not with its square: a block of rows is computed at a time, and candidates are counted from
    groups.
    """

    def __init__(self, rows: pd.DataFrame, held_out: Sequence[HeldOut]) -> None:
        """`rows` (M) have the columns of `held_out`; where nothing is held out, a row shares only itself."""
        columns = [_names(rows, column) for column in held_out] or [[(row,) for row in range(len(rows))]]
        self._shared = [_Shared(columns, len(rows)) for columns in _subsets(columns)]

    @property
    def fold(self) -> np.ndarray:
        """Rows of the same code have the same candidates: (M,)."""
        return self._shared[-1].kind

    def block(self, rows: slice) -> np.ndarray:
        """Whether each row is a candidate of the rows of a slice: (slice, M) bool."""
        return ~np.logical_or.reduce([shared.block(rows) for shared in self._shared if shared.n_columns == 1])

    def count(self, code: np.ndarray, same: np.ndarray | None = None) -> np.ndarray:
        """How many candidates of each row have its code: (M,).

        Args:
            code: (M,) whole numbers, 0 to K-1.
            same: (K, K) which codes of candidates (rows) match which of the row (columns); None: each its own.
        """
        # Those that share no column are all, less those that share one, plus those that share two, and so on.
        return np.sum([(-1) ** shared.n_columns * shared.count(code, same) for shared in self._shared], axis=0)


class _Shared:
    """Which rows share a name in each of some columns. T kinds of rows by their names there."""

    def __init__(self, columns: Sequence[Sequence[tuple[Hashable, ...]]], n_rows: int) -> None:
        """`columns` have the names of each row, one or more; without columns all rows share."""
        self.n_columns = len(columns)
        names = list(zip(*columns)) if columns else [()] * n_rows
        kinds = {of_row: code for code, of_row in enumerate(dict.fromkeys(names))}
        self.kind = np.array([kinds[of_row] for of_row in names])  # (M,)
        self.n_kinds = len(kinds)
        # Rows that share a name in each column share a combination of names, one of each column.
        combined = [set(product(*of_kind)) for of_kind in kinds]
        shared = _sharing_kinds(combined) if any(len(own) > 1 for own in combined) else None
        self.kinds = None if shared is None or shared.nnz == len(kinds) else shared  # (T, T); None: each with itself

    def block(self, rows: slice) -> np.ndarray:
        """Whether each row shares with the rows of a slice: (slice, M) bool."""
        if self.kinds is None:
            return self.kind[rows, None] == self.kind
        return (self.kinds[self.kind[rows]].toarray() > 0)[:, self.kind]

    def count(self, code: np.ndarray, same: np.ndarray | None) -> np.ndarray:
        """How many rows that share with each row have its code, by `Candidates.count`: (M,)."""
        n_codes = int(code.max()) + 1 if same is None else len(same)
        pairs = self.kind * n_codes + code
        if self.kinds is None and same is None:
            pair = pd.factorize(pairs)[0]
            return np.bincount(pair)[pair]
        counts = np.bincount(pairs, minlength=self.n_kinds * n_codes).reshape(self.n_kinds, n_codes)
        if self.kinds is not None:
            counts = self.kinds @ counts
        if same is not None:
            counts = counts @ same.astype(float)
        return counts[self.kind, code]


def _subsets(columns: list[list[tuple[Hashable, ...]]]) -> Iterator[tuple[list[tuple[Hashable, ...]], ...]]:
    """All subsets of the columns, from none to all of them."""
    return chain.from_iterable(combinations(columns, n) for n in range(len(columns) + 1))


def _names(rows: pd.DataFrame, column: HeldOut) -> list[tuple[Hashable, ...]]:
    """The names of each row in a column: several where a treatment has several batches or plates."""
    if column in SEVERAL:
        return [tuple(sorted(set(names.split(JOINED_BY)))) for names in rows[column]]
    return [(name,) for name in (zip(rows["plate"], rows["well"]) if column == "well" else rows[column])]


def _sharing_kinds(names: Sequence[set[tuple[Hashable, ...]]]) -> csr_array:
    """Which of the sets of names (T) have a common one: (T, T) 0/1."""
    from scipy.sparse import csr_array  # slow to import, and only needed here

    code = {name: place for place, name in enumerate(set().union(*names))}
    ends = np.cumsum([0, *map(len, names)])
    places = np.array([code[name] for own in names for name in own])
    members = csr_array((np.ones(len(places)), places, ends), shape=(len(names), len(code)))
    shared = members @ members.T
    shared.data[:] = 1
    return shared


def countable(rows: pd.DataFrame, held_out: Sequence[HeldOut], *, separator: str = "") -> np.ndarray:
    """Which rows (M,) have a candidate of their own mechanism; never those whose `moa` is empty."""
    texts, code = np.unique(rows["moa"].to_numpy(dtype=str), return_inverse=True)
    same = sharing(texts.tolist(), separator) if separator else None
    return (Candidates(rows, held_out).count(code, same) > 0) & (texts != "")[code]


def why_impossible(rows: pd.DataFrame, protocol: str, held_out: Sequence[HeldOut], *, separator: str = "") -> str:
    """Why a protocol can count none of these treated rows; empty where it can count one.

    Args:
        rows: `moa` ("" where unknown) and the columns of `held_out`, joined by | where a treatment has several.
        protocol: What the message calls it.
        held_out: What candidates must not share with the query.
        separator: Of several mechanisms in one text.
    """
    known = sorted(set(rows["moa"]) - {""})
    if not known:
        return f"{protocol} needs mechanisms, and none is known ({MECHANISM})"
    if len(known) == 1:
        return f'{protocol} needs at least two mechanisms, and the only one is "{known[0]}"'
    batches = set(JOINED_BY.join(rows["batch"]).split(JOINED_BY)) if "batch" in held_out else set()
    if len(batches) == 1:
        named = f'"{min(batches)}"' if min(batches) else "without a name"
        return f"{protocol} leaves out the treatment's own batch, and all are of one batch, {named} ({BATCH})"
    if not countable(rows, held_out, separator=separator).any():
        shared = f"shares its {' or '.join(held_out)} with all others of its mechanism"
        column = BATCH if "batch" in held_out else MECHANISM
        return f"{protocol} can count no treatment, since each {shared} ({column})"
    return ""


def impossible_scores(
    rows: pd.DataFrame, protocols: Mapping[str, Sequence[HeldOut]] = NAMED, *, separator: str = ""
) -> dict[str, str]:
    """The protocols that can count none of these treated rows, and why."""
    reasons = {name: why_impossible(rows, name, names, separator=separator) for name, names in protocols.items()}
    return {name: why for name, why in reasons.items() if why}


def treated_treatments(cells: pd.DataFrame) -> pd.DataFrame:
    """A row per treatment of a table of cells, wells or fields: compound, moa, and its batches and plates joined."""
    treated = cells[cells["role"] == "treated"]
    named = treated.assign(
        treatment=treatment_name(treated["compound"].astype(str), treated["concentration_um"]),
        moa=treated["moa"].astype(object).where(treated["moa"].notna(), ""),
    )
    joined = lambda names: JOINED_BY.join(sorted(set(map(str, names))))  # noqa: E731
    groups = named.groupby("treatment", sort=True)
    return groups.agg(
        compound=("compound", "first"), moa=("moa", "first"), batch=("batch", joined), plate=("plate", joined)
    )
