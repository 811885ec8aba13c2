"""Which treatments are candidates of which, and which scores a screen allows, from its metadata alone.

M rows (treatments or wells), K different texts in the mechanism column. A text names one mechanism, or several with a
separator between them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from phenolens.core.names import known_mechanism
from phenolens.profiles.profiles import JOINED_BY
from phenolens.screens.screen import treatment_name

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


def candidates(rows: pd.DataFrame, held_out: Sequence[HeldOut]) -> np.ndarray:
    """Which rows (M) with the columns of `held_out` share none of them with each row: (M, M) bool."""
    candidate = ~np.eye(len(rows), dtype=bool)
    for column in held_out:
        members = _membership(rows, column)
        candidate &= members @ members.T == 0
    return candidate


def _membership(rows: pd.DataFrame, column: HeldOut) -> np.ndarray:
    """Which groups each row belongs to: (M, groups) 0/1 float32."""
    if column in SEVERAL:
        groups = rows[column].map(lambda names: names.split(JOINED_BY))
    else:
        names_of = rows[["plate", "well"]].agg(JOINED_BY.join, axis=1) if column == "well" else rows[column]
        groups = names_of.map(lambda name: [name])
    names = {name: code for code, name in enumerate(sorted({name for row in groups for name in row}))}
    members = np.zeros((len(rows), len(names)), dtype=np.float32)
    for row, own in enumerate(groups):
        members[row, [names[name] for name in own]] = 1
    return members


def countable(rows: pd.DataFrame, held_out: Sequence[HeldOut], *, separator: str = "") -> np.ndarray:
    """Which rows (M,) have a candidate of their own mechanism; never those whose `moa` is empty."""
    texts, code = np.unique(rows["moa"].to_numpy(dtype=str), return_inverse=True)
    same = sharing(texts.tolist(), separator) & (texts != "") & (texts != "")[:, None]
    return (candidates(rows, held_out) & same[code][:, code]).any(axis=1)


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
