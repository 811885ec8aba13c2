"""Crop quality in the report: how many crops are flagged, on which plates that is unusual, and examples.

N crops, C channels; a kind is one of FLAGS. The counts come from the crops' own records.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from phenolens.core.counted import counted
from phenolens.core.names import shortened
from phenolens.crops.config import FLAGS
from phenolens.crops.store import CropStore
from phenolens.plotting.page import Picture
from phenolens.plotting.quality_figures import MOST_SHOWN, flagged_crops

KINDS: list[str] = list(FLAGS)
# of each kind: the measure of a channel (of the crop, for focus), and whether large or small values are extreme
SEVERITY = {
    "noise": ("neighbour_correlation", -1),
    "saturated": ("saturated_share", 1),
    "bright spot": ("spot_contrast", 1),
    "out of focus": ("focus", -1),
}
UNUSUAL_TIMES = 3  # a plate is unusual with more than this many times the median plate's share of a kind ...
LEAST_UNUSUAL = 10  # ... and at least this many crops: a third expected, ten happen by chance once in 400 (Poisson)
LEAST_PLATES = 3  # with fewer, none can have three times the median
MOST_LISTED = 12  # plates in the table; with more, only unusual ones are listed
DIVIDING = ("saturated", "out of focus")  # dividing cells are often flagged as these: they round up and are bright


@dataclass(frozen=True)
class FoundNuclei:
    """How cells' centres were found, where no table gave them."""

    by_cellpose: bool
    channel: str
    n: int
    n_at_border: int  # left out, because their crop would leave the field


@dataclass(frozen=True)
class CropQuality:
    """What the report says about the crops."""

    n_crops: int
    n_flagged: int
    n_left_out: int  # of training and profiles
    kept_out: list[str]  # the kinds that are left out
    n_plates: int
    n_unusual: int  # plates
    by_plate: pd.DataFrame  # a row per plate, the first all plates together
    found: FoundNuclei | None = None
    example_crops: Picture | None = None

    @property
    def n_unlisted(self) -> int:
        """Plates that are not in the table, because there are many and they are not unusual."""
        return self.n_plates + 1 - len(self.by_plate)

    @property
    def biasing(self) -> list[str]:
        """The kinds left out that include dividing cells."""
        return [kind for kind in self.kept_out if kind in DIVIDING]


def crop_quality(store: CropStore) -> CropQuality:
    """Counts of flagged crops, unusual plates, and the most extreme examples of each kind."""
    counts = flag_counts(store)
    flagged = store.cells["flags"].ne("")
    return CropQuality(
        n_crops=len(store),
        n_flagged=int(flagged.sum()),
        n_left_out=int(store.cells["is_noise"].sum()),
        kept_out=list(store.about["config"]["leave_out"]),
        n_plates=len(counts),
        n_unusual=int(unusual_shares(counts).ne("").sum()),
        by_plate=_listed(counts),
        found=_found(store),
        example_crops=_examples(store, counts) if counts[KINDS].to_numpy().any() else None,
    )


def flag_counts(store: CropStore) -> pd.DataFrame:
    """Crops by plate: `crops`, a column per kind of FLAGS, `left out`; a crop can have several flags."""
    plates: Mapping[str, Any] = store.about["plates"]
    rows = [
        {
            "crops": plate["n_crops"],
            **{kind: int(plate["n_flagged"].get(kind, 0)) for kind in KINDS},
            "left out": plate["n_noise"],
        }
        for plate in plates.values()
    ]
    return pd.DataFrame(rows, index=pd.Index(plates, name="plate"))


def unusual_shares(counts: pd.DataFrame) -> pd.Series:
    """The unusual kinds of each plate with their shares, as text; empty where nothing is unusual."""
    n = counts[KINDS].to_numpy()
    shares = n / counts["crops"].clip(lower=1).to_numpy()[:, None]
    median = np.median(shares, axis=0)
    unusual = (shares > UNUSUAL_TIMES * median) & (n >= LEAST_UNUSUAL) & (len(counts) >= LEAST_PLATES)
    texts = [
        "; ".join(
            f"{KINDS[k]}: {100 * shares[plate, k]:.2g} %, the median plate {100 * median[k]:.2g} %"
            for k in np.flatnonzero(unusual[plate])
        )
        for plate in range(len(counts))
    ]
    return pd.Series(texts, index=counts.index, dtype=object)


def excluded_crops(store: CropStore, *, n_wells: int, min_cells: int) -> pd.DataFrame:
    """What is in no batch and no profile, a row per kind: what, how many, why."""
    plates = store.about["plates"].values()
    kinds = " or ".join(store.about["config"]["leave_out"])
    rows = [
        ("cells at a border", sum(plate["n_at_border"] for plate in plates), "their crop would leave the field"),
        (f"crops flagged as {kinds}", sum(plate["n_noise"] for plate in plates), "left out of training and profiles"),
        *((str(what), count, "skipped on request") for what, count in store.about["left_out"].items()),
        ("wells", len(store.empty_wells), f"no cell, of {shortened(sorted(set(store.empty_wells.values())))}"),
        ("wells", n_wells, f"fewer than {counted(min_cells, 'cell')}"),
    ]
    return pd.DataFrame([row for row in rows if row[1]], columns=["what", "how many", "why"])


def _listed(counts: pd.DataFrame) -> pd.DataFrame:
    """The table that is shown: all plates together, then each, or only the unusual ones of many."""
    unusual = unusual_shares(counts)
    listed = counts if len(counts) <= MOST_LISTED else counts[unusual != ""]
    total = pd.DataFrame(counts.sum().to_dict(), index=[f"all {len(counts)}"])
    table = pd.concat([total, listed])
    if unusual.any():
        table["unusual"] = ["", *unusual[listed.index]]
    return table.rename_axis("plate").reset_index()


def _found(store: CropStore) -> FoundNuclei | None:
    how = store.about["source"].get("cells")
    if not how:
        return None
    n_at_border = sum(plate["n_at_border"] for plate in store.about["plates"].values())
    return FoundNuclei(how == "cellpose", store.channels[0], len(store) + n_at_border, n_at_border)


def _examples(store: CropStore, counts: pd.DataFrame) -> Picture:
    flags, quality = store.cells["flags"], store.quality()
    shown, framed = {}, {}
    for kind in KINDS:
        rows = np.flatnonzero(flags.str.contains(kind, regex=False))
        if len(rows):
            severity, of_channel = _severity(quality.iloc[rows], kind, store.channels)
            most = np.argsort(-severity, kind="stable")[:MOST_SHOWN]
            shown[kind], framed[kind] = store.take(rows[most]), of_channel[most]
    return flagged_crops(
        shown,
        {kind: int(counts[kind].sum()) for kind in shown},
        n_crops=len(store),
        n_flagged=int(flags.ne("").sum()),
        channels=store.channels,
        framed=framed,
    )


def _severity(flagged: pd.DataFrame, kind: str, channels: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """How extreme crops are (n,), and which of their channels (n, C) the flag names: none for the focus."""
    measure, sign = SEVERITY[kind]
    if measure in flagged:
        return sign * flagged[measure].to_numpy(), np.zeros((len(flagged), len(channels)), bool)
    of_channel = flagged[[f"{kind.replace(' ', '_')}_{channel}" for channel in channels]].to_numpy(bool)
    values = sign * flagged[[f"{measure}_{channel}" for channel in channels]].to_numpy(float)
    return np.where(of_channel, values, -np.inf).max(axis=1), of_channel
