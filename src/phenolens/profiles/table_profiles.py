"""How the rows of a table, cells, wells or treatments, become profiles.

N rows, Z features. Nothing is left out unless it is asked for, and what is left out is listed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
import pandas as pd

from phenolens.core.bounds import Bounded, Count
from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.core.provenance import provenance
from phenolens.profiles.columns import ALL_PLATES
from phenolens.profiles.feature_selection import Rule, dominant, excluded_features, scaled_by_one_control
from phenolens.profiles.profiles import METADATA, metadata, named_summaries, treatment_profiles, well_profiles
from phenolens.profiles.validate import feature_matrix, number_matrix, repeated_rows, without_non_finite
from phenolens.profiles.whitening import Recipe, Whitening, apply_whitening, fit_whitening

if TYPE_CHECKING:
    from anndata import AnnData

Rows = Literal["cells", "wells", "treatments"]


@dataclass(frozen=True)
class TableConfig(Bounded):
    """How the rows of a table become profiles of treatments."""

    rows: Literal["auto", "cells", "wells", "treatments"] = "auto"  # what a row is; auto: from plate and well
    statistics: str = "mean"  # of a well's cells: mean, median, sd, mad, trimmed, q25 ..., joined by +
    min_cells: Count = 1  # wells with fewer cells are left out and listed
    well_statistic: Literal["median", "mean", "trimmed", "cells"] = "median"  # over wells; cells: weighted mean
    positive_controls: Literal["left out", "counted"] = "left out"  # rows of role other that hold a treated dose
    non_finite: Literal["refused", "features", "rows"] = "refused"  # what is left out on a NaN or infinity
    duplicates: Literal["refused", "left out"] = "refused"  # rows that repeat another, number for number
    select_features: tuple[Rule, ...] = ()  # rules that leave features out, on scaled profiles: docs/definitions.md

    def __post_init__(self) -> None:
        """Validate the settings."""
        super().__post_init__()
        named_summaries(self.statistics)


@dataclass(frozen=True)
class Profiles:
    """The profiles of a table: wells as given, whitened, and the treatments made of them."""

    rows: Rows  # what a row of the table was
    wells: AnnData | None  # before scaling; None where a row is a treatment
    whitened: AnnData  # the rows that scaling and whitening were fitted on and applied to
    treatments: AnnData
    whitening: Whitening
    left_out: dict[str, list[str]] = field(default_factory=dict)  # by why: names of features, rows, wells
    notes: tuple[str, ...] = ()  # what decides distances alone


def profiles_of(parts: Iterable[AnnData], config: TableConfig, recipe: Recipe) -> Profiles:
    """Profiles of wells and treatments from a table that comes in parts, each of whole wells.

    InputError on anything that cannot be computed with, naming the row and feature; nothing is left out unasked.
    """
    missing: list[str] = []
    rows, parts = kind_of_rows(_with_numbers(parts, config, missing), config.rows)
    left_out: dict[str, list[str]] = {}
    parts = _without_repeated_rows(parts, config, left_out)
    if rows == "cells":
        as_asked = {"refused": "refused", "features": "features left out", "rows": "cells left out"}
        given = well_profiles(
            parts,
            statistics=config.statistics,
            min_cells=config.min_cells,
            non_finite=as_asked[config.non_finite],  # type: ignore[arg-type]
        )
        about = provenance(given)
        left_out["wells with too few cells"] = [f"{well['plate']}_{well['well']}" for well in about["wells_left_out"]]
        left_out["features that are not finite"] = about["features_left_out"]
    else:
        given = _one_table(parts)
        if config.non_finite != "refused":
            what: Literal["features", "rows"] = config.non_finite
            given, left_out[f"{what} that are not finite"] = without_non_finite(given, left_out=what)
    feature_matrix(given)
    scaling = replace(recipe, whitening="none", coral="none", coral_form="broad", largest_deviation=None)
    scaled = apply_whitening(given, fit_whitening(given, scaling))
    excluded = excluded_features(scaled, config.select_features)
    left_out |= excluded
    unwanted = {name for names in excluded.values() for name in names}
    scaled, given = (table[:, ~table.var_names.isin(unwanted)].copy() for table in (scaled, given))
    if recipe.largest_deviation is not None:
        scaled.X = scaled.X.clip(-recipe.largest_deviation, recipe.largest_deviation)
    whitening = fit_whitening(given, recipe)
    left_out["features without spread"] = list(whitening.constant_features)
    whitened = apply_whitening(given, whitening)
    if rows == "treatments":
        treatments = whitened
    else:
        treatments = treatment_profiles(
            whitened, statistic=config.well_statistic, positive_controls=config.positive_controls
        )
    wells = None if rows == "treatments" else given
    left_out = {why: names for why, names in left_out.items() if names}
    notes = [*_missing_note(missing, config), *_row_notes(given, rows, config)]
    notes += dominant(scaled, remedy="check it, set a --largest-deviation, or leave it out of the table")
    notes += scaled_by_one_control(given, remedy="check the well, leave it out of the table, or use --scaling robust")
    return Profiles(rows, wells, whitened, treatments, whitening, left_out, tuple(notes))


def _row_notes(given: AnnData, rows: Rows, config: TableConfig) -> list[str]:
    """What the rows count as where that is not said, and which hold nothing but 0."""
    notes = []
    if rows == "cells" and config.rows == "auto":
        n_cells = given.obs[METADATA["cell_count"]]
        notes.append(
            f"each row counts as a cell: {int(n_cells.sum()):,} rows in {counted(len(n_cells), 'well')}, most often "
            f"{int(n_cells.mode()[0]):,} (--rows)"
        )
    if rows == "wells" and (given.obs[METADATA["well"]] == given.obs_names).all():
        notes.append("no well is named (--well): each row counts as a well of its own (--rows)")
    is_zero = ~np.asarray(given.X).any(axis=1)
    if is_zero.any() and given.n_vars > 1:
        notes.append(
            f"{counted(int(is_zero.sum()), 'row')} with 0 in all features, perhaps of wells without cells (the first: "
            f"{given.obs_names[is_zero.argmax()]}); remove such rows"
        )
    return notes


def kind_of_rows(parts: Iterator[AnnData], asked: str) -> tuple[Rows, Iterator[AnnData]]:
    """What a row is, and all parts again: cells where most wells of the first part have several rows, else wells.

    Rows are treatments where there is no well column and every treatment is in one row. InputError where wells have
    several rows and no plate is named: they may be wells of several plates.
    """
    first = next(parts, None)
    if first is None:
        raise InputError("table: no rows; expected at least one")
    again = chain([first], parts)
    if asked != "auto":
        return cast(Rows, asked), again
    obs = metadata(first, ("plate", "well", "treatment", "role"), what="table")
    counts = obs.groupby(["plate", "well"]).size()
    if counts.median() > 1:
        if (obs["plate"] == ALL_PLATES).all():
            well, n_rows = counts.index[int(counts.to_numpy().argmax())][1], int(counts.max())
            raise InputError(
                f"table: {int((counts > 1).sum()):,} of {counted(len(counts), 'well')} have several rows ({well} has "
                f"{n_rows:,}) and no plate is named; name its column with --plate, or, of cells of one plate, "
                "say --rows cells"
            )
        return "cells", again
    if (obs["well"] != obs.index).any():
        return "wells", again
    whole = list(again)  # a table without wells is held whole anyway: a treatment may be on another plate
    known = pd.concat([metadata(part, ("treatment", "role"), what="table") for part in whole])
    unique = known.loc[known["role"] == "treated", "treatment"].is_unique
    return ("treatments" if unique else "wells"), iter(whole)


def _with_numbers(parts: Iterable[AnnData], config: TableConfig, missing: list[str]) -> Iterator[AnnData]:
    """Each part with numbers; text among them is NaN, and added to `missing`, where what is not finite is left out."""
    for part in parts:
        if (written := np.asarray(part.X)).dtype.kind not in "fiub":
            part.X = number_matrix(part, what="table", text_is_missing=config.non_finite != "refused")
            for row, column in np.argwhere(np.isnan(part.X) & pd.notna(written)):
                missing.append(f'"{written[row, column]}" of {part.obs_names[row]}, {part.var_names[column]}')
        yield part


def _missing_note(missing: Sequence[str], config: TableConfig) -> list[str]:
    if not missing:
        return []
    return [
        f"{counted(len(missing), 'cell')} of the table with text instead of a number (the first: {missing[0]}); its "
        f"{config.non_finite} are left out (--non-finite)"
    ]


def _without_repeated_rows(
    parts: Iterable[AnnData], config: TableConfig, left_out: dict[str, list[str]]
) -> Iterator[AnnData]:
    """Each part without rows that repeat an earlier one number for number, on any plate; InputError unless asked."""
    seen: set[bytes] = set()
    n_rows = 0
    for part in parts:
        n_rows += part.n_obs
        repeated = repeated_rows(np.asarray(part.X), seen=seen)
        if not repeated.any():
            yield part
            continue
        names = np.asarray(part.obs_names)[repeated]
        if config.duplicates == "refused":
            raise InputError(
                f'table: row "{names[0]}" repeats another row in all {part.n_vars} features '
                f"({counted(len(names), 'such row')} "
                f'of the {n_rows:,} read so far); remove them, or have them left out (--duplicates "left out")'
            )
        left_out.setdefault("rows that repeat another", []).extend(map(str, names))
        yield part[~repeated].copy()


def _one_table(parts: Iterable[AnnData]) -> AnnData:
    import anndata

    tables = list(parts)
    table = tables[0] if len(tables) == 1 else anndata.concat(tables, merge="same")
    table.uns.update(tables[0].uns)
    return table
