"""Is a batch difference named as one, and a real mechanism not? On a study of a simulated screen with batch effects.

    phenolens demo demo
    python benchmarks/batch_or_biology.py OUT --study demo/study

Placebos, whose truth is known: a random half of the control wells of one batch is called a treatment. Nothing was done
to these cells, so against all other controls they differ by their batch alone. As the other side, half of the control
wells of every batch is called a treatment: no difference at all, in any direction. Beside them each mechanism, its
treatments together, against all controls, and each compound alone, which here lies in one batch: against all controls
its direction holds the batch's difference too, against the controls of its own batch it does not.

OUT gets batch_or_biology.csv (a row per direction) and batch_or_biology.md.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import tyro
from tyro.conf import OmitArgPrefixes, Positional

from phenolens.core.bounds import Bounded, Count
from phenolens.core.errors import InputError
from phenolens.core.files import write_text
from phenolens.core.progress import tell
from phenolens.runs.embeddings import EmbeddedCells, embedded_cells
from phenolens.study import Study
from phenolens.travels.batch_effect import batch_space

KINDS = ("placebo in one batch", "placebo in all batches", "mechanism", "compound", "compound, own batch's controls")


@dataclass(frozen=True)
class Flags(Bounded):
    """What the benchmark takes."""

    out: Positional[Path]  # folder for the two tables
    study: Path  # a study of a screen with two or more batches, each with control wells
    runs: tuple[str, ...] = ()  # which of its runs; all that are embedded when left out
    draws: Count = 20  # random halves of the control wells, seeds 0, 1, ...


def batch_or_biology(flags: Flags) -> None:
    """Take every direction of every run, and write how much of each lies in the batch space."""
    study = Study.open(flags.study)
    names = (
        study.chosen_runs(flags.runs) if flags.runs else sorted(path.name for path in study.folder.glob("embeddings/*"))
    )
    rows = [row for name in names for row in shares(name, embedded_cells(study, name), flags.draws)]
    table = pd.DataFrame(rows, columns=["run", "kind", "direction", "n_cells", "share", "chance", "named"])
    flags.out.mkdir(parents=True, exist_ok=True)
    write_text(flags.out / "batch_or_biology.csv", table.to_csv(index=False))
    write_text(flags.out / "batch_or_biology.md", report(table, flags))
    print((flags.out / "batch_or_biology.md").read_text())
    tell(f"every direction: {flags.out / 'batch_or_biology.csv'}")


def shares(run: str, cells: EmbeddedCells, draws: Count) -> Iterator[tuple[str, str, str, int, float, float, bool]]:
    """A row per direction of this run."""
    table = cells.catalogue.cells
    batch, plate, well, compound, moa = (
        table[name].astype(str).to_numpy() for name in ("batch", "plate", "well", "compound", "moa")
    )
    of_well = np.char.add(np.char.add(plate, " "), well)
    z = np.asarray(cells.z, float)
    controls = cells.catalogue.rows(role="control")
    is_control = np.isin(np.arange(len(z)), controls)

    def row(kind: str, name: str, treated: np.ndarray, against: np.ndarray, space_of: np.ndarray) -> tuple:
        direction = z[treated].mean(axis=0) - z[against].mean(axis=0)
        found = batch_space(z[space_of], batch[space_of]).share(direction)
        return run, kind, name, len(treated), found.share, found.chance, found.is_batch

    for draw in range(draws):
        random = np.random.default_rng(draw)
        halves = {
            name: random.permutation(np.unique(of_well[controls[batch[controls] == name]]))
            for name in np.unique(batch[controls])
        }
        taken = {name: wells[: len(wells) // 2] for name, wells in halves.items()}
        everywhere = np.isin(of_well[controls], np.concatenate(list(taken.values())))
        yield row(KINDS[1], f"draw {draw}", controls[everywhere], controls[~everywhere], controls[~everywhere])
        for name, wells in taken.items():
            placebo = np.isin(of_well[controls], wells)
            yield row(KINDS[0], f"{name}, draw {draw}", controls[placebo], controls[~placebo], controls[~placebo])
    treated = np.flatnonzero(cells.catalogue.counted & ~is_control)
    for name in np.unique(moa[treated]):
        yield row(KINDS[2], name, treated[moa[treated] == name], controls, controls)
    for name in np.unique(compound[treated]):
        rows = treated[compound[treated] == name]
        own = controls[np.isin(batch[controls], np.unique(batch[rows]))]
        yield row(KINDS[3], name, rows, controls, controls)
        yield row(KINDS[4], name, rows, own, controls)


def report(table: pd.DataFrame, flags: Flags) -> str:
    """A row per run and kind of direction: how many are named a batch difference, and the shares."""
    lines = [
        f"{flags.draws} draws of placebo wells; share: median (range) over directions, in percent.\n",
        "| run | direction | named a batch difference | share, % | chance, % |",
        "| --- | --- | --- | --- | --- |",
    ]
    for (run, kind), rows in table.groupby(["run", "kind"], sort=False):
        share = 100 * rows["share"]
        lines.append(
            f"| {run} | {kind} | {rows['named'].sum()} of {len(rows)} | {share.median():.0f} "
            f"({share.min():.0f} to {share.max():.0f}) | {100 * rows['chance'].median():.1f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    """0 when it is done, 2 for bad input."""
    try:
        batch_or_biology(tyro.cli(Flags, prog="batch_or_biology.py", description=__doc__, config=(OmitArgPrefixes,)))
    except InputError as error:
        tell(f"batch_or_biology.py: {error}")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
