"""Where a treatment fragments the nuclei of some of its cells: do medoids show them as a population of their own?

    phenolens demo demo
    python benchmarks/mixed_populations.py OUT --study demo/study --screen demo/screen

The paper's own failure: under nocodazole some nuclei fragment, and the one cell nearest to the mean shows none of it.
On a simulated screen it is known of every cell whether its nucleus was drawn in pieces. For each treatment of the
mechanisms that fragment nuclei, and each number of medoids, this script looks at the populations that `phenolens
travel --targets medoids` shows. The population with the most pieces of the nucleus, as measured and not as planted, is
called the fragmented one; then the truth is opened: which share of its cells was planted in pieces (purity), beside the
share among all cells of the treatments (base) and the share of all planted ones that it holds (recall). The p-value is
the share of --shuffles in which cells were dealt anew over the populations of their treatment and purity was as high.

OUT gets mixed_populations.csv (a row per treatment, number of medoids and way) and mixed_populations.md.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import tyro
from tyro.conf import OmitArgPrefixes, Positional

from phenolens.core.bounds import Bounded, Bounds, Count, Seed
from phenolens.core.errors import InputError
from phenolens.core.files import write_text
from phenolens.core.progress import tell, track
from phenolens.simulation.phenotypes import MECHANISMS
from phenolens.study import Study
from phenolens.travels.compute import Traveller
from phenolens.travels.config import TravelConfig

PLACE = ["plate", "well", "site", "object_number"]  # names a cell, in crops and truth
LEAST_SHARE = 0.2  # of fragmented nuclei under the full effect, for a mechanism to be looked at
PIECES = "n_nuclear_fragments"
WAYS = ("nucleus", "measures", "embedding")


@dataclass(frozen=True)
class Flags(Bounded):
    """What the benchmark takes."""

    out: Positional[Path]  # folder for the two tables
    study: Path  # a study of a simulated screen, with a run that decodes
    screen: Path  # that screen, with its truth.parquet
    run: str | None = None  # the run; left out: the one that is pictured
    medoids: tuple[Annotated[int, Bounds(ge=2)], ...] = (
        2,
        3,
        4,
    )  # travel's default is 3, fixed earlier
    seed: Seed = 0  # of medoids and shuffles
    shuffles: Count = 2000  # for the p-values


def mixed_populations(flags: Flags) -> None:
    """Look at every treatment, then open the truth and write both tables."""
    study = Study.open(flags.study)
    traveller = Traveller.open(study, flags.run)
    planted = planted_fragments(study, flags.screen / "truth.parquet")
    treatments = fragmenting(traveller)
    asked = [(name, k, way) for way in WAYS for k in flags.medoids for name in treatments.index]
    rows = [
        row
        for name, k, way in track(asked, "looking at populations", total=len(asked))
        for row in shown(traveller, name, str(treatments[name]), k, way, planted, flags)
    ]
    table = pd.DataFrame(rows)
    flags.out.mkdir(parents=True, exist_ok=True)
    write_text(flags.out / "mixed_populations.csv", table.drop(columns="shuffled").to_csv(index=False))
    write_text(flags.out / "mixed_populations.md", report(table, traveller, flags))
    print((flags.out / "mixed_populations.md").read_text())
    tell(f"every treatment: {flags.out / 'mixed_populations.csv'}")


def planted_fragments(study: Study, truth_path: Path) -> np.ndarray:
    """Whether each cell of the study was drawn with its nucleus in pieces; InputError where the truth lacks a cell."""
    cells = study.crops.cells[PLACE]
    truth = pd.read_parquet(truth_path, columns=[*PLACE, "n_fragments"])
    joined = cells.merge(truth, on=PLACE, how="left", validate="1:1")
    if joined["n_fragments"].isna().any():
        raise InputError(f"{truth_path}: does not hold every cell of {study.folder}; name the screen it was made from")
    return (joined["n_fragments"] > 1).to_numpy()


def fragmenting(traveller: Traveller) -> pd.Series:
    """Mechanism of each treatment whose mechanism fragments nuclei; InputError where there is none."""
    known = [name for name, phenotype in MECHANISMS.items() if phenotype.fragmented_share >= LEAST_SHARE]
    table = traveller.catalogue.treatments
    found = table.loc[table["moa"].isin(known) & (table["role"] == "treated"), "moa"]
    if found.empty:
        raise InputError(f"no treatment of {', '.join(known)}: this is no simulated screen with these mechanisms")
    return found


def shown(
    traveller: Traveller, treatment: str, moa: str, k: int, way: str, planted: np.ndarray, flags: Flags
) -> Iterator[dict[str, Any]]:
    """What is shown of a treatment, a row; none where it has fewer cells than medoids."""
    asked = TravelConfig(treatment, targets="medoids", medoids=k, medoids_by=way, seed=flags.seed)  # type: ignore[arg-type]
    rows = traveller.catalogue.rows_of(treatment)
    if len(rows) < k:
        return
    targets = traveller.targets(treatment, asked)
    pieces = [traveller.measured.of(target.rows)[PIECES].mean() for target in targets]
    fragmented = targets[int(np.nanargmax(pieces))]
    random = np.random.default_rng(flags.seed)
    of_all = planted[rows]
    yield {
        "mechanism": moa,
        "treatment": treatment,
        "by": way,
        "medoids": k,
        "n_cells": len(rows),
        "n_planted": int(of_all.sum()),
        "n_shown": len(fragmented.rows),
        "n_shown_planted": int(planted[fragmented.rows].sum()),
        "medoid_planted": bool(planted[fragmented.row]),
        "mean_target_planted": bool(planted[traveller.targets(treatment, TravelConfig(treatment))[0].row]),
        "shuffled": [int(random.permutation(of_all)[: len(fragmented.rows)].sum()) for _ in range(flags.shuffles)],
    }


def report(table: pd.DataFrame, traveller: Traveller, flags: Flags) -> str:
    """All treatments of a mechanism together, a row per mechanism, way and number of medoids."""
    head = ["mechanism", "populations by", "medoids", "treatments", "cells", "base", "purity", "least to most",
            "recall", "p", "medoid in pieces", "cell nearest to the mean in pieces"]  # fmt: skip
    lines = [head, ["---"] * len(head)]
    for (moa, way, k), group in table.groupby(["mechanism", "by", "medoids"], sort=False):
        n, planted, shown_, hits = (group[c].sum() for c in ("n_cells", "n_planted", "n_shown", "n_shown_planted"))
        shuffled = np.sum(group["shuffled"].tolist(), axis=0)
        p = (1 + (shuffled >= hits).sum()) / (1 + flags.shuffles)
        lines.append(
            [
                moa,
                way,
                k,
                len(group),
                n,
                f"{planted / n:.2f}",
                f"{hits / shown_:.2f} ({hits} of {shown_})",
                "{:.2f} to {:.2f}".format(*(group["n_shown_planted"] / group["n_shown"]).agg(["min", "max"])),
                f"{hits / planted:.2f}",
                f"{p:.4f}",
                f"{group['medoid_planted'].sum()} of {len(group)}",
                f"{group['mean_target_planted'].sum()} of {len(group)}",
            ]
        )
    body = "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
    return f"{traveller.run.name}, seed {flags.seed}, {flags.shuffles} shuffles.\n\n{body}\n"


def main() -> int:
    """0 when it is done, 2 for bad input."""
    try:
        mixed_populations(tyro.cli(Flags, prog="mixed_populations.py", description=__doc__, config=(OmitArgPrefixes,)))
    except InputError as error:
        tell(f"mixed_populations.py: {error}")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
