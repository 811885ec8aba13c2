"""Well profiles of cells, and treatment profiles of wells.

A table is an AnnData: X (N rows, Z features), obs with the columns of METADATA under CellProfiler's names. A summary of
n cells maps (n, Z) to (Z,).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from phenolens.core.bounds import NotNegativeCount
from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.core.provenance import KEY, provenance, provenance_text
from phenolens.profiles.validate import feature_matrix, first_bad_place, number_matrix, refuse_too_large
from phenolens.screens.screen import METADATA as SCREEN_METADATA
from phenolens.screens.screen import treatment_name

if TYPE_CHECKING:
    from anndata import AnnData

Summary = Callable[[np.ndarray], np.ndarray]

TRIMMED_SHARE = 0.1  # of the cells, left out at each end of each feature


def trimmed_mean(cells: np.ndarray) -> np.ndarray:
    """Mean without the lowest and the highest tenth of the cells (rounded down) of each feature."""
    n_trimmed = int(TRIMMED_SHARE * len(cells))
    return np.sort(cells, axis=0)[n_trimmed : len(cells) - n_trimmed].mean(axis=0)


def quantile(percent: int) -> Summary:
    """The percentile over cells, linear between neighbours."""
    return lambda cells: np.quantile(cells, percent / 100, axis=0)


SUMMARIES: dict[str, Summary] = {
    "mean": lambda cells: cells.mean(axis=0),
    "median": lambda cells: np.median(cells, axis=0),
    "sd": lambda cells: cells.std(axis=0),  # divided by n, so that a well of one cell has 0
    "mad": lambda cells: np.median(np.abs(cells - np.median(cells, axis=0)), axis=0),  # not rescaled
    "trimmed": trimmed_mean,
}


def named_summaries(statistics: str) -> dict[str, Summary]:
    """`mean+sd` as the two summaries by name, in that order; `q25` is the 25th percentile."""
    chosen: dict[str, Summary] = {}
    for name in statistics.split("+"):
        percentile = re.fullmatch(r"q(\d{1,2}|100)", name)
        if name in chosen or (name not in SUMMARIES and percentile is None):
            raise InputError(
                f'statistics "{statistics}": "{name}" is unknown or named twice; expected {", ".join(SUMMARIES)} or '
                "q0 to q100, joined by +, such as mean+sd or median+mad"
            )
        chosen[name] = SUMMARIES[name] if percentile is None else quantile(int(percentile[1]))
    return chosen


METADATA = {**SCREEN_METADATA, "cell_count": "Metadata_Cell_Count", "well_count": "Metadata_Well_Count"}
OF_A_WELL = ("plate", "well", "batch", "compound", "concentration_um", "moa", "role", "treatment")
JOINED_BY = "|"  # between the batches (plates) of a treatment that has several


def metadata(table: AnnData, columns: Sequence[str], *, what: str = "profiles") -> pd.DataFrame:
    """The named columns of METADATA as plain text ("" where empty), concentrations and counts as numbers.

    The index is that of `table`. `treatment` is made from compound and concentration where it is missing, and a missing
    `moa` is empty. InputError on any other missing column.
    """
    obs = table.obs
    plain = pd.DataFrame(index=obs.index)
    for column in columns:
        name = METADATA[column]
        if name in obs.columns:
            plain[column] = _plain(obs[name], column, what)
        elif column == "moa":
            plain[column] = ""
        elif column == "treatment":
            parts = metadata(table, ("compound", "concentration_um"), what=what)
            plain[column] = treatment_name(parts["compound"], parts["concentration_um"])
        else:
            found = ", ".join(map(str, obs.columns)) or "none"
            raise InputError(f"{what}: no metadata column {name} (found: {found})")
    return plain


def _plain(values: pd.Series, column: str, what: str) -> pd.Series:
    """Text without categories and missing values, or numbers, whatever the column was stored as."""
    if column in ("concentration_um", "cell_count", "well_count"):
        numbers = pd.to_numeric(values.astype(object), errors="coerce").astype(float)
        bad = numbers.isna() & (values.notna() | (column != "concentration_um"))  # a concentration may be unknown
        if bad.any():
            row = numbers.index[bad][0]
            raise InputError(f'{what}: {METADATA[column]} of row "{row}" is "{values[row]}"; expected a number')
        return numbers
    text = values.astype(object)
    return text.where(text.notna(), "").astype(str)


def well_profiles(
    cells: AnnData | Iterable[AnnData],
    *,
    statistics: str = "mean",
    min_cells: NotNegativeCount = 1,
    noise: Literal["left out", "counted"] = "left out",
    non_finite: Literal["refused", "features left out", "cells left out"] = "refused",
) -> AnnData:
    """Summarise the cells of each well, feature by feature.

    Args:
        cells: a table of cells, or parts of one that each hold whole wells (a plate, say) and of which only one is in
            memory at a time. Cells with a true Metadata_Is_Noise are flagged.
        statistics: names of SUMMARIES or quantiles (q25), joined by +.
        min_cells: wells with fewer cells are left out.
        noise: what to do with flagged cells.
        non_finite: what to do with NaN and infinite values.

    Returns:
        A row per well, by plate and well; features are named `<feature>_mean`, `<feature>_sd` and so on.
        `uns["phenolens"]` lists what was left out.

    Raises:
        InputError: a well in two parts or with two treatments, parts with different features, NaN unless left out.
    """
    from anndata import AnnData

    summaries = named_summaries(statistics)
    wells = Wells()
    for part in [cells] if isinstance(cells, AnnData) else cells:
        wells.made_from = wells.made_from or provenance(part)
        for obs, block in wells_of(part, wells, noise=noise, non_finite=non_finite):
            wells.add(obs, block, summaries, min_cells=min_cells)
        del part  # before the next one is made
    kept = [index for index, name in enumerate(wells.features) if name not in wells.non_finite_features]
    if wells.rows and not kept:
        raise InputError(f"cells: all {len(wells.features)} features hold values that are not finite; none is left")
    return wells.table(
        [summary[:, kept].ravel() for summary in wells.rows],
        [f"{wells.features[index]}_{statistic}" for statistic in summaries for index in kept],
        statistics=statistics,
        min_cells=min_cells,
        non_finite=non_finite,
        features_left_out=sorted(wells.non_finite_features),
        cells_left_out_as_not_finite=wells.n_non_finite_cells,
    )


@dataclass
class Wells:
    """What has been found in the parts so far."""

    features: list[str] = field(default_factory=list)
    rows: list[np.ndarray] = field(default_factory=list)  # (statistics, Z) a well
    obs: list[dict[str, object]] = field(default_factory=list)
    seen: set[tuple[str, str]] = field(default_factory=set)
    left_out: list[dict[str, object]] = field(default_factory=list)
    n_noise: int = 0
    n_non_finite_cells: int = 0
    non_finite_features: set[str] = field(default_factory=set)
    made_from: dict[str, object] = field(default_factory=dict)

    def add(self, obs: dict[str, object], block: np.ndarray, summaries: dict[str, Summary], *, min_cells: int) -> None:
        """Take one well's cells (n, Z), or list the well as left out."""
        name = (str(obs["plate"]), str(obs["well"]))
        if name in self.seen:
            raise InputError(
                f'cells: plate "{name[0]}", well "{name[1]}" is in two parts; a part must hold whole wells'
            )
        self.seen.add(name)
        if len(block) < max(1, min_cells):
            self.left_out.append({"plate": name[0], "well": name[1], "cells": len(block)})
            return
        self.obs.append({**obs, "cell_count": len(block)})
        self.rows.append(np.stack([summary(block) for summary in summaries.values()]))

    def table(self, rows: list[np.ndarray], names: list[str], *, min_cells: int, **choices: object) -> AnnData:
        """The profiles of all wells, by plate and well; InputError when there is none."""
        from anndata import AnnData

        if not rows:
            few = (
                f"fewer than {counted(min_cells, 'cell')} in {counted(len(self.left_out), 'well')}"
                if self.left_out
                else "there are no cells"
            )
            raise InputError(
                f"cells: no well profile can be made, since {few}; expected wells with at least {min_cells}"
            )
        obs = pd.DataFrame(self.obs).rename(columns=METADATA)
        obs.index = pd.Index([f"{plate}_{well}" for plate, well in zip(obs[METADATA["plate"]], obs[METADATA["well"]])])
        order = np.lexsort((obs[METADATA["well"]], obs[METADATA["plate"]]))
        profiles = AnnData(np.stack(rows)[order], obs=obs.iloc[order], var=pd.DataFrame(index=pd.Index(names)))
        profiles.uns[KEY] = provenance_text(
            "well profiles",
            made_from=self.made_from,
            min_cells=min_cells,
            wells_left_out=sorted(self.left_out, key=lambda well: (well["plate"], well["well"])),
            noise_cells_left_out=self.n_noise,
            **choices,
        )
        return profiles


def wells_of(
    part: AnnData, wells: Wells, *, noise: str, non_finite: str
) -> Iterator[tuple[dict[str, object], np.ndarray]]:
    """Each well of a part: its metadata and its cells (n, Z), after leaving out what is to be left out."""
    _check_features(part, wells)
    obs, well = _wells_of_rows(part)
    keep = _kept_cells(part, wells, noise=noise)
    numbers = number_matrix(part, what="cells")
    if non_finite != "refused" and (bad := ~np.isfinite(numbers) & keep[:, None]).any():
        if non_finite == "cells left out":
            wells.n_non_finite_cells += int(bad.any(axis=1).sum())
            keep &= ~bad.any(axis=1)
        else:
            wells.non_finite_features.update(part.var_names[bad.any(axis=0)])
            numbers = np.where(bad, 0, numbers)  # whole features that are removed at the end
    order = np.argsort(well, kind="stable")
    bounds = np.searchsorted(well[order], np.arange(len(obs) + 1))
    for place, (start, end) in enumerate(pairwise(bounds)):
        rows = order[start:end]
        rows = rows[keep[rows]]
        together = len(rows) and rows[-1] - rows[0] == len(rows) - 1
        block = numbers[rows[0] : rows[-1] + 1] if together else numbers[rows]
        try:
            refuse_too_large(block, part.var_names, what="cells")
        except InputError:  # NaN is not below the largest number either
            if (bad := ~np.isfinite(numbers) & keep[:, None]).any():
                raise InputError(first_bad_place(numbers, bad, part, what="cells")) from None
            raise
        yield {str(key): value for key, value in obs.iloc[place].items()}, block.astype(np.float64)


def _wells_of_rows(part: AnnData) -> tuple[pd.DataFrame, np.ndarray]:
    """The metadata of each well of a part, by plate and well, and the well (N,) of each row."""
    from anndata import AnnData

    named = [METADATA[column] for column in OF_A_WELL if METADATA[column] in part.obs.columns]
    kind = np.zeros(part.n_obs, dtype=int)  # rows with equal values, of which one is read
    if named:
        kind = part.obs.groupby(named, observed=True, sort=False, dropna=False).ngroup().to_numpy()
    first = np.flatnonzero(~pd.Series(kind).duplicated().to_numpy())
    obs = metadata(AnnData(obs=part.obs.iloc[first]), OF_A_WELL, what="cells")
    _check_one_treatment_a_well(obs)
    well = obs.groupby(["plate", "well"], sort=True).ngroup().to_numpy()
    well_of_kind = np.empty(len(first), dtype=int)
    well_of_kind[kind[first]] = well
    return obs.iloc[np.unique(well, return_index=True)[1]], well_of_kind[kind]


def _check_features(part: AnnData, wells: Wells) -> None:
    names = [str(name) for name in part.var_names]
    wells.features = wells.features or names
    if names != wells.features:
        other = next((name for name in names if name not in wells.features), "another order or number")
        raise InputError(f'cells: the parts have different features (first difference: "{other}"); expected the same')


def _kept_cells(part: AnnData, wells: Wells, *, noise: str) -> np.ndarray:
    if noise == "counted" or METADATA["is_noise"] not in part.obs.columns:
        return np.ones(part.n_obs, dtype=bool)
    is_noise = noise_flags(part.obs[METADATA["is_noise"]])
    wells.n_noise += int(is_noise.sum())
    return ~is_noise


def noise_flags(values: pd.Series) -> np.ndarray:
    """Booleans (N,) from booleans, 0 and 1, or text; InputError that names the row where it is neither."""
    if values.dtype == bool:
        return values.to_numpy()
    text = values.astype(object).map(lambda value: str(value).strip().casefold())
    known = text.map({"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False})
    if known.isna().any():
        row = int(known.isna().to_numpy().argmax())
        held = "empty" if pd.isna(values.iloc[row]) else f'"{values.iloc[row]}"'
        raise InputError(
            f'cells: {values.name} of row "{values.index[row]}" is {held} '
            f"({counted(int(known.isna().sum()), 'such row')}); "
            "expected true or false: fill it in"
        )
    return known.to_numpy(dtype=bool)


def _check_one_treatment_a_well(obs: pd.DataFrame) -> None:
    kinds = obs.drop_duplicates()
    twice = kinds.duplicated(["plate", "well"], keep=False)
    if twice.any():
        first, second = (kinds[twice].sort_values(["plate", "well"]).iloc[index] for index in (0, 1))
        differing = next(column for column in OF_A_WELL if str(first[column]) != str(second[column]))
        raise InputError(
            f'cells: plate "{first["plate"]}", well "{first["well"]}" has cells with {METADATA[differing]} '
            f'"{first[differing]}" and "{second[differing]}"; expected one value per well'
        )


def treatment_profiles(
    wells: AnnData,
    *,
    statistic: Literal["median", "mean", "trimmed", "cells"] = "median",
    positive_controls: Literal["left out", "counted"] = "left out",
) -> AnnData:
    """Summarise the wells of each treatment (a compound at a concentration).

    Args:
        wells: a row per well, as `well_profiles` makes them. Controls are in no treatment.
        statistic: over the wells of a treatment, feature by feature; `cells`: mean weighted by their number of cells.
        positive_controls: `counted` adds wells of the role `other` that hold the treatment of a treated well (BBBC021:
            taxol 0.3 uM then comes from 333 wells instead of 3).

    Returns:
        A row per treatment, by compound and concentration; its batches and plates are joined by `|`.

    Raises:
        InputError: no treated well, a well listed twice, a treatment with two compounds or mechanisms, or NaN.
    """
    from anndata import AnnData

    numbers = feature_matrix(wells, what="well profiles")
    obs = metadata(wells, OF_A_WELL, what="well profiles").reset_index(drop=True)
    _check_wells(obs)
    treated = (obs["role"] == "treated").to_numpy()
    chosen = treated.copy()
    if positive_controls == "counted":
        chosen |= ((obs["role"] == "other") & obs["treatment"].isin(obs["treatment"][treated])).to_numpy()
    n_cells = metadata(wells, ("cell_count",))["cell_count"] if METADATA["cell_count"] in wells.obs.columns else None
    if statistic == "cells" and n_cells is None:
        raise InputError(f"well profiles: no column {METADATA['cell_count']}, which --well-statistic cells weights by")
    rows, descriptions = [], []
    for treatment, group in obs[chosen].groupby("treatment", sort=False):
        if statistic == "cells":
            assert n_cells is not None
            rows.append(np.average(numbers[group.index], axis=0, weights=n_cells.iloc[group.index]))
        else:
            rows.append(SUMMARIES[statistic](numbers[group.index]))
        described = {
            "treatment": treatment,
            "compound": group["compound"].iloc[0],
            "concentration_um": group["concentration_um"].iloc[0],
            "moa": group["moa"].iloc[0],
            "role": "treated",
            "batch": _joined(group["batch"]),
            "plate": _joined(group["plate"]),
            "well_count": len(group),
        }
        descriptions.append(
            described | ({} if n_cells is None else {"cell_count": int(n_cells.iloc[group.index].sum())})
        )
    described_rows = pd.DataFrame(descriptions).rename(columns=METADATA)
    described_rows.index = pd.Index(described_rows[METADATA["treatment"]].astype(object).to_numpy())
    order = np.lexsort((described_rows[METADATA["concentration_um"]], described_rows[METADATA["compound"]]))
    profiles = AnnData(np.stack(rows)[order], obs=described_rows.iloc[order], var=pd.DataFrame(index=wells.var_names))
    profiles.uns[KEY] = provenance_text(
        "treatment profiles",
        made_from=provenance(wells),
        statistic=statistic,
        positive_controls=positive_controls,
        wells=int(chosen.sum()),
        treatments=len(rows),
    )
    return profiles


def _joined(names: pd.Series) -> str:
    return JOINED_BY.join(sorted(set(names)))


def _check_wells(obs: pd.DataFrame) -> None:
    """InputError unless treatments can be made of these wells without guessing."""
    treated = obs[obs["role"] == "treated"]
    if treated.empty:
        found = ", ".join(sorted(set(obs["role"])))
        raise InputError(
            f"well profiles: no well with the role treated (found: {found}); there is no treatment to profile"
        )
    twice = obs.duplicated(["plate", "well"])
    if twice.any():
        row = obs[twice].iloc[0]
        raise InputError(
            f'well profiles: plate "{row["plate"]}", well "{row["well"]}" is listed twice; expected one row per well'
        )
    for column in ("compound", "moa", "concentration_um"):
        kinds = treated[["treatment", column]].drop_duplicates()
        double = kinds["treatment"].duplicated()
        if double.any():
            treatment = kinds["treatment"][double].iloc[0]
            values = [str(value) or "(empty)" for value in sorted(kinds[column][kinds["treatment"] == treatment])]
            raise InputError(
                f'well profiles: treatment "{treatment}" has {METADATA[column]} {" and ".join(values)}; expected one: '
                "correct the table"
            )
    for column in ("batch", "plate"):
        odd = treated[column].str.contains(JOINED_BY, regex=False)
        if odd.any():
            name = treated[column][odd].iloc[0]
            raise InputError(
                f'well profiles: {METADATA[column]} "{name}" holds {JOINED_BY}, which joins several; rename it'
            )
