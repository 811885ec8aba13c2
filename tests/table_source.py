"""A small made screen as other programs write it: wells, cells, their own names of columns, a planted answer."""

import numpy as np
import pandas as pd

from phenolens.profiles.columns import Columns

FLAGS = (
    "--treatment drug_dose --compound drug --concentration uM --mechanism target --batch week --plate barcode "
    "--well position --control DMSO"
).split()
NAMED = Columns(
    treatment="drug_dose",
    compound="drug",
    concentration="uM",
    mechanism="target",
    batch="week",
    plate="barcode",
    well="position",
    control=("DMSO",),
)
FEATURES = [f"Cells_{name}" for name in ("Area", "Perimeter", "Intensity", "Texture", "Edge", "Noise")]
MECHANISMS = ("actin", "tubulin", "dna")


def wells(*, seed: int = 0, n_controls: int = 8) -> pd.DataFrame:
    """Two plates in each of two weeks; three compounds per mechanism, two doses, one well a week, correlated features.

    The mechanism shifts its own two features, so that its treatments find each other.
    """
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(len(FEATURES), len(FEATURES)))
    rows = []
    for week in ("w1", "w2"):
        for plate in ("a", "b"):
            number = 0
            for m, mechanism in enumerate(MECHANISMS):
                for compound in range(3):
                    for dose in (1.0, 10.0):
                        if (compound == 0) == (plate == "a"):
                            number += 1
                            shift = np.zeros(len(FEATURES))
                            shift[2 * m] = 12.0
                            drug = f"{mechanism}{compound}"
                            rows.append((week, plate, number, drug, dose, mechanism, shift))
            for _ in range(n_controls):
                number += 1
                rows.append((week, plate, number, "DMSO", 0.0, "", np.zeros(len(FEATURES))))
    table = pd.DataFrame(
        {
            "barcode": [f"{week}{plate}" for week, plate, *_ in rows],
            "position": [f"{'ABCDEFGH'[number // 12]}{number % 12 + 1:02d}" for _, _, number, *_ in rows],
            "week": [row[0] for row in rows],
            "drug": [row[3] for row in rows],
            "uM": [row[4] for row in rows],
            "target": [row[5] or None for row in rows],
        }
    )
    table["drug_dose"] = table["drug"] + "_" + table["uM"].map("{:g}".format)
    shifts = np.stack([row[6] for row in rows])
    noise = rng.normal(size=shifts.shape)
    return pd.concat([table, pd.DataFrame((noise + shifts) @ mixing + 50, columns=FEATURES)], axis=1)


def cells_of(table: pd.DataFrame, *, n_cells: int = 5, seed: int = 1) -> pd.DataFrame:
    """Cells whose mean over each well is the well, exactly to rounding."""
    rng = np.random.default_rng(seed)
    repeated = table.loc[table.index.repeat(n_cells)].reset_index(drop=True)
    spread = rng.normal(size=(len(table), n_cells, len(FEATURES)))
    spread -= spread.mean(axis=1, keepdims=True)
    repeated[FEATURES] += spread.reshape(-1, len(FEATURES))
    return repeated
