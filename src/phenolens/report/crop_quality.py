"""What the report says of the crops' quality: how many are flagged, where they stand out, what they look like.

N crops; a kind is one of FLAGS. Counts are those of the crops; nothing is measured anew.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from phenolens.crops.config import FLAGS
from phenolens.crops.store import CropStore
from phenolens.plotting.page import Picture
from phenolens.plotting.quality_figures import MOST_SHOWN, flagged_crops
from phenolens.report.page import QualityContents

KINDS: list[str] = list(FLAGS)
UNUSUAL_TIMES = 3  # a plate stands out with more than so many times the median plate's share of a kind ...
LEAST_UNUSUAL = 10  # ... and at least so many crops: a third of that expected, ten come by chance once in 400 (Poisson)
LEAST_PLATES = 3  # of fewer, none can have three times the median
MOST_LISTED = 12  # plates in the table; of more, only those that stand out are listed
KEPT = (
    "Dividing cells are among the saturated and the out-of-focus ones, since they round up and are bright. These kinds "
    "are therefore kept by default: leaving them out biases profiles towards cells that do not divide."
)


def quality(store: CropStore, *, seed: int) -> QualityContents:
    """How many crops are flagged as what, on which plates that is unusual, and random examples chosen by `seed`."""
    counts = flag_counts(store)
    return QualityContents(
        sentences=(*_counted(store.cells, counts, store.about["config"]["leave_out"]), *_found(store)),
        by_plate=_listed(counts),
        examples=_examples(store, counts, seed),
    )


def flag_counts(store: CropStore) -> pd.DataFrame:
    """Crops by plate: `crops`, a column a kind of FLAGS, `left out`; a crop can have several flags."""
    plates = store.about["plates"]
    rows = [{"crops": plate["n_crops"], **_kinds(plate), "left out": plate["n_noise"]} for plate in plates.values()]
    return pd.DataFrame(rows, index=pd.Index(plates, name="plate"))


def standing_out(counts: pd.DataFrame) -> pd.Series:
    """Where a plate has an unusual share of a kind, in words; empty where it has not, or plates are too few."""
    n = counts[KINDS].to_numpy()
    shares = n / counts["crops"].clip(lower=1).to_numpy()[:, None]
    usual = np.median(shares, axis=0)
    unusual = (shares > UNUSUAL_TIMES * usual) & (n >= LEAST_UNUSUAL) & (len(counts) >= LEAST_PLATES)
    words = [
        "; ".join(
            f"{KINDS[k]}: {100 * shares[plate, k]:.2g} %, the median plate {100 * usual[k]:.2g} %"
            for k in np.flatnonzero(unusual[plate])
        )
        for plate in range(len(counts))
    ]
    return pd.Series(words, index=counts.index, dtype=object)


def left_out(store: CropStore, *, n_wells: int, min_cells: int) -> pd.DataFrame:
    """What is in no batch and no profile, a row a kind: what, how many, why."""
    plates = store.about["plates"].values()
    kinds = " or ".join(store.about["config"]["leave_out"])
    rows = [
        ("cells at a border", sum(plate["n_at_border"] for plate in plates), "their crop would leave the field"),
        (
            f"crops flagged as {kinds}",
            sum(plate["n_noise"] for plate in plates),
            "in no batch, no profile: --leave-out",
        ),
    ]
    rows += [(str(what), count, "asked for with --skip-missing") for what, count in store.about["left_out"].items()]
    rows.append(("wells", n_wells, f"fewer than --min-cells {min_cells} cells"))
    return pd.DataFrame([row for row in rows if row[1]], columns=["what", "how many", "why"])


def _kinds(plate: Mapping[str, Any]) -> dict[str, int]:
    return {kind: int(plate["n_flagged"][kind]) for kind in KINDS}


def _listed(counts: pd.DataFrame) -> pd.DataFrame:
    """The table that is shown: all plates together, then each, or of many the unusual ones."""
    stands_out = standing_out(counts)
    listed = counts if len(counts) <= MOST_LISTED else counts[stands_out != ""]
    total = pd.DataFrame(counts.sum().to_dict(), index=[f"all {len(counts)}"])
    table = pd.concat([total, listed])
    if stands_out.any():
        table["stands out"] = ["", *stands_out[listed.index]]
    return table.rename_axis("plate").reset_index()


def _counted(cells: pd.DataFrame, counts: pd.DataFrame, leave_out: list[str]) -> list[str]:
    """What was flagged, what of it was left out, and how plates compare."""
    n, flagged, out = len(cells), cells["flags"].ne(""), cells["is_noise"].astype(bool)
    if not flagged.any():
        return [f"None of {n:,} crops is flagged as {', '.join(KINDS[:-1])} or {KINDS[-1]}."]
    chosen = f"chosen with --leave-out: {', '.join(leave_out) or 'nothing'}"
    sentences = [
        f"Of {n:,} crops, {_share(int(flagged.sum()), n)} are flagged: {int(out.sum()):,} are left out of training and "
        f"profiles ({chosen}), {int((flagged & ~out).sum()):,} are only flagged and stay in.",
        KEPT,
    ]
    biasing = [kind for kind in leave_out if kind in ("saturated", "out of focus")]
    if biasing:
        sentences.append(f"Here crops that are {' or '.join(biasing)} were left out (--leave-out), so this bias is in.")
    if len(counts) < LEAST_PLATES:
        return [*sentences, f"With fewer than {LEAST_PLATES} plates none can be said to stand out."]
    n_out = int(standing_out(counts).ne("").sum())
    rule = f"more than {UNUSUAL_TIMES} times the median plate's share of a kind, and at least {LEAST_UNUSUAL} crops"
    unlisted = len(counts) > MOST_LISTED
    others = (
        f" The other {len(counts) - n_out} plates are not listed; crops/about.json counts them." if unlisted else ""
    )
    stand = f"{n_out} of {len(counts)} plates stand{'s' if n_out == 1 else ''} out" if n_out else "No plate stands out"
    return [*sentences, f"{stand} ({rule}).{others}"]


def _found(store: CropStore) -> list[str]:
    """What is said where the cells' centres were found here, not given."""
    how = store.about["source"].get("cells")
    if not how:
        return []
    at_border = sum(plate["n_at_border"] for plate in store.about["plates"].values())
    n = len(store) + at_border
    by = " by Cellpose" if how == "cellpose" else ""
    return [
        f"No table gave the cells' centres: they were found here{by}, in the channel {store.channels[0]}, {n:,} "
        f"nuclei. Of these, {_share(at_border, n)} lie so near a border that their crop would leave the field, and "
        "were left out."
    ]


def _examples(store: CropStore, counts: pd.DataFrame, seed: int) -> tuple[Picture, ...]:
    flags = store.cells["flags"]
    random = np.random.default_rng(seed)
    shown: dict[str, np.ndarray] = {}
    for kind in KINDS:
        rows = np.flatnonzero(flags.str.contains(kind, regex=False))
        if len(rows):
            shown[kind] = store.take(np.sort(random.choice(rows, min(MOST_SHOWN, len(rows)), replace=False)))
    if not shown:
        return ()
    totals = {kind: int(counts[kind].sum()) for kind in shown}
    n_flagged = int(flags.ne("").sum())
    figure = flagged_crops(shown, totals, n_crops=len(store), n_flagged=n_flagged, channels=store.channels)
    return (figure,)


def _share(n: int, of: int) -> str:
    return f"{n:,} ({100 * n / max(of, 1):.1f} %)"
