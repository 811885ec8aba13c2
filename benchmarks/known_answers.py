"""Does phenotype travel show what a mechanism does? Its measured change beside what was planted in simulated cells.

    phenolens demo demo                                       # or any study of a simulated screen, with more models
    python benchmarks/planted.py PLANTED
    python benchmarks/known_answers.py OUT --planted PLANTED/planted.csv --study demo/study

The planted parameter of a mechanism is the one that, moved alone, changes its declared measure most (planted.py; no
model takes part). For every run that decodes, control cells travel to each treatment of the mechanism; first and last
frame are measured, and their difference, in deviations of real control cells, is held beside it: has the parameter's
measure the planted sign, and is its change the largest or second largest of all declared measures? Mechanisms that have
both hold. `any_holds` counts, less strictly, where first or second is a measure, with its sign, of any parameter that
the mechanism is seen to move. Ways: to the target cell (feature swap and straight line end in the same picture), to
medoids by their share of the cells, along the direction from the controls' mean to the treatment's.

To compare with: the same with mechanisms' labels shuffled; the same of the real treated cells instead of decoded ones
(no picture can be expected to show more); and of their reconstructions. OUT gets known_answers.csv (a row per run, way,
draw of control cells, mechanism, and label it could have had) and known_answers.md.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import tyro
from tyro.conf import OmitArgPrefixes, Positional

from phenolens.core.bounds import Bounded, Bounds
from phenolens.core.errors import InputError
from phenolens.core.files import write_text
from phenolens.core.progress import tell, track
from phenolens.morphology.features import measures
from phenolens.morphology.medoids import medoids
from phenolens.runs.decoder import DecodingRun, open_decoding_runs
from phenolens.runs.embeddings import EmbeddedCells, embedded_cells
from phenolens.runs.latent_path import along_direction, straight_line, target_cell
from phenolens.study import Study

CHANNELS = ("DNA", "tubulin", "actin")
SHUFFLES = 10_000
N_MEDOIDS = 3
LEAST_EFFECT = 0.5  # of a parameter alone on its measure, in deviations of untreated cells, to be a planted one


@dataclass(frozen=True)
class Flags(Bounded):
    """What the benchmark takes."""

    out: Positional[Path]  # folder for the tables
    planted: Path  # planted.csv that planted.py wrote
    study: Path  # a study of a simulated screen, with embedded runs
    runs: tuple[str, ...] = ()  # which of its runs; all that decode when left out
    draws: tuple[int, ...] = (0, 1, 2)  # seeds, each of another draw of control cells to start from
    starts: Annotated[int, Bounds(ge=2)] = 20  # control cells that travel, in each draw

    def __post_init__(self) -> None:
        """InputError on a number out of bounds, or without a seed."""
        super().__post_init__()
        if not self.draws:
            raise InputError("--draws: expected at least one seed")


def known_answers(flags: Flags) -> None:
    """Travel, measure and hold one beside the other; write the tables."""
    study = Study.open(flags.study)
    runs = find_decoding_runs(study, flags.runs)
    flags.out.mkdir(parents=True, exist_ok=True)
    alone = read_planted(flags.planted)
    planted, ranked = planted_parameters(alone), list(alone["measure"].unique())
    tables = [held(alone, real_changes(study, runs[0])[ranked], "real cells", 0, "-")]
    for run in runs:
        tables += [held(alone, found[ranked], way, draw, run.name) for way, draw, found in travels(study, run, flags)]
    table = pd.concat(tables, ignore_index=True)
    write_text(flags.out / "known_answers.csv", table.to_csv(index=False))
    write_text(flags.out / "known_answers.md", report(planted, table, flags, n_ranked=len(ranked)))
    print((flags.out / "known_answers.md").read_text())
    tell(
        f"every mechanism: {flags.out / 'known_answers.csv'}; next: look at the frames, phenolens travel {flags.study}"
    )


def find_decoding_runs(study: Study, wanted: tuple[str, ...]) -> list[DecodingRun]:
    """The runs asked for, or all embedded ones that decode; what does not decode is said."""
    names = study.chosen_runs(wanted) if wanted else sorted(path.name for path in study.folder.glob("embeddings/*"))
    runs = open_decoding_runs(study, names)
    if not runs:
        raise InputError(f"{study.folder}: no embedded run decodes; train one and embed it: phenolens train, embed")
    left_out = sorted(set(names) - {run.name for run in runs})
    if left_out:
        tell(f"left out, since they do not decode: {', '.join(left_out)}")
    if tuple(runs[0].store.channels) != CHANNELS:
        raise InputError(
            f"{study.folder}: channels {', '.join(runs[0].store.channels)}; expected {', '.join(CHANNELS)}"
        )
    return runs


def measured(crops: np.ndarray) -> pd.DataFrame:
    """The measures of crops (n, 3, S, S), decoded or as models see them."""
    return measures(crops, channels=CHANNELS)


def read_planted(path: Path) -> pd.DataFrame:
    """The table that planted.py wrote; InputError where it is not there or is another one."""
    columns = {"mechanism", "parameter", "value", "measure", "sign", "effect_alone", "n_cells"}
    table = pd.read_csv(path) if path.is_file() else pd.DataFrame()
    if not columns <= set(table.columns):
        raise InputError(f"{path}: no table of planted parameters; make it: python benchmarks/planted.py OUT")
    return table


def seen_parameters(alone: pd.DataFrame) -> pd.DataFrame:
    """The parameters whose effect alone is seen with the declared sign, largest first, one a mechanism and measure."""
    seen = alone[alone["effect_alone"] * alone["sign"] >= LEAST_EFFECT]
    largest = seen.assign(size=seen["effect_alone"].abs()).sort_values("size", ascending=False, kind="stable")
    return largest.drop_duplicates(["mechanism", "measure"]).drop(columns="size")


def planted_parameters(alone: pd.DataFrame) -> pd.DataFrame:
    """A row per mechanism: its parameter that, moved alone, has the largest effect with the declared sign."""
    return seen_parameters(alone).drop_duplicates("mechanism").sort_values("mechanism").set_index("mechanism")


def travels(study: Study, run: DecodingRun, flags: Flags) -> Iterator[tuple[str, int, pd.DataFrame]]:
    """For each way and draw of control cells the measured change, a row per mechanism, in deviations of controls."""
    cells = embedded_cells(study, run.name)
    unit = measured(run.originals(cells.catalogue.rows(role="control"))).std()
    of_mechanism = treatments(cells)
    n_draws = len(flags.draws)
    yield "reconstructions", 0, redrawn_changes(run, cells, of_mechanism) / unit
    for draw in track(flags.draws, f"{run.name}: travelling", total=n_draws):
        starts = np.random.default_rng(draw).choice(cells.catalogue.rows(role="control"), flags.starts, replace=False)
        first = measured(run.decoded(cells.z[starts])).mean()
        for way in ("target cell", "medoids", "direction"):
            last = {
                name: pd.DataFrame([way_end(way, run, cells, starts, rows) for rows in each]).mean()
                for name, each in of_mechanism.items()
            }
            yield way, draw, (pd.DataFrame(last).T - first) / unit


def treatments(cells: EmbeddedCells) -> dict[str, list[np.ndarray]]:
    """Of each mechanism the rows of each of its active treatments, a compound at a dose."""
    table = cells.catalogue.cells
    treated = table[cells.catalogue.counted & (table["role"] != "control").to_numpy()]
    by = ["moa", "compound", "concentration_um"]
    groups: dict[str, list[np.ndarray]] = {}
    for (name, *_), group in treated.astype({"moa": str, "compound": str}).groupby(by, sort=True):
        groups.setdefault(name, []).append(group.index.to_numpy())
    return groups


def way_end(way: str, run: DecodingRun, cells: EmbeddedCells, starts: np.ndarray, rows: np.ndarray) -> pd.Series:
    """Measures of the last frame, mean over the control cells that travel to the treatment of these rows."""
    z = cells.z[rows].astype(float)
    if way == "target cell":  # swap or line, from whatever cell: all end in the target's reconstruction
        end = straight_line(cells.z[starts[0]], z[target_cell(z)], 2).embeddings[-1:]
        return measured(run.decoded(end)).mean()
    if way == "medoids":
        found = medoids(z, min(N_MEDOIDS, len(z)))
        of_medoid = measured(run.decoded(z[found.rows]))
        known = of_medoid.notna().mul(found.shares, axis=0)
        return of_medoid.fillna(0).mul(found.shares, axis=0).sum() / known.sum()
    # minus the controls of the treatment's own batches: what batches differ by is no part of the way
    batch = cells.catalogue.cells["batch"].astype(str).to_numpy()
    controls = cells.catalogue.rows(role="control")
    own = controls[np.isin(batch[controls], np.unique(batch[rows]))]
    direction = z.mean(axis=0) - cells.z[own].mean(axis=0)
    ends = [along_direction(cells.z[start], direction, 2).embeddings[-1] for start in starts]
    return measured(run.decoded(np.array(ends))).mean()


def redrawn_changes(run: DecodingRun, cells: EmbeddedCells, of_mechanism: dict[str, list[np.ndarray]]) -> pd.DataFrame:
    """Reconstructions of all treated cells minus those of all control cells, a row per mechanism."""
    control = measured(run.decoded(cells.z[cells.catalogue.rows(role="control")])).mean()
    rows = {name: np.concatenate(each) for name, each in of_mechanism.items()}
    return pd.DataFrame({name: measured(run.decoded(cells.z[of])).mean() for name, of in rows.items()}).T - control


def real_changes(study: Study, run: DecodingRun) -> pd.DataFrame:
    """Real treated cells minus real control cells, a row per mechanism, in deviations of control cells."""
    cells = embedded_cells(study, run.name)
    control = measured(run.originals(cells.catalogue.rows(role="control")))
    of_mechanism = {name: np.concatenate(each) for name, each in treatments(cells).items()}
    changes = {name: measured(run.originals(rows)).mean() for name, rows in of_mechanism.items()}
    return (pd.DataFrame(changes).T - control.mean()) / control.std()


def held(alone: pd.DataFrame, changes: pd.DataFrame, way: str, draw: int, run: str) -> pd.DataFrame:
    """A row for each mechanism and each label it could have had: its change of the label's measure, and what holds.

    `any_holds`: whether first or second is a measure, with its sign, of any parameter that the label is seen to move.
    """
    rank = changes.abs().rank(axis=1, ascending=False, method="first")
    seen, planted = seen_parameters(alone), planted_parameters(alone)
    labelled = planted.loc[planted.index.isin(changes.index)]  # a study may hold fewer mechanisms
    rows = []
    for name in labelled.index:
        for label, answer in labelled.iterrows():
            measure, sign = answer["measure"], answer["sign"]
            change, place = changes.loc[name, measure], rank.loc[name, measure]
            right = bool(np.sign(change) == sign)
            moved = seen[seen["mechanism"] == label].set_index("measure")["sign"]
            of_moved = changes.loc[name, moved.index]
            any_holds = bool(((np.sign(of_moved) == moved) & (rank.loc[name, moved.index] <= 2)).any())
            rows.append((run, way, draw, name, label, answer["parameter"], measure, sign, change, place, right,
                         right and place <= 2, any_holds))  # fmt: skip
    columns = ["run", "way", "draw", "mechanism", "label", "parameter", "measure", "sign", "change", "rank",
               "sign_right", "holds", "any_holds"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def shuffled(table: pd.DataFrame, column: str = "holds", seed: int = 0) -> np.ndarray:
    """How many mechanisms hold under each of SHUFFLES permutations of their labels, from one draw's rows."""
    square = table.pivot(index="mechanism", columns="label", values=column).to_numpy(int)
    random = np.random.default_rng(seed)
    permuted = random.permuted(np.tile(np.arange(len(square)), (SHUFFLES, 1)), axis=1)
    return square[np.arange(len(square)), permuted].sum(axis=1)


def counts(table: pd.DataFrame) -> pd.DataFrame:
    """A row per run and way: how many mechanisms have the sign, the rank and both, and what shuffled labels give."""
    own = table[table["mechanism"] == table["label"]].assign(first_two=lambda rows: rows["rank"] <= 2)
    rows = []
    for (run, way), group in own.groupby(["run", "way"], sort=False):
        by_draw = group.groupby("draw")[["sign_right", "first_two", "holds", "any_holds"]].sum()
        row = {"run": run, "way": way, **{name: spread(by_draw[name]) for name in by_draw}}
        of_way = [each for _, each in table[(table["run"] == run) & (table["way"] == way)].groupby("draw")]
        for column in ("holds", "any_holds"):
            chance = np.concatenate([shuffled(each, column) for each in of_way])
            row[f"{column}, shuffled"] = f"{chance.mean():.1f} (95 %: {np.percentile(chance, 95):.0f})"
            row[f"{column}, p"] = f"{(chance >= by_draw[column].median()).mean():.4f}"
        rows.append(row)
    return pd.DataFrame(rows)


def spread(values: pd.Series) -> str:
    """`9 (8 to 10)`: the median and range over draws; one number where they are one."""
    low, middle, high = values.min(), values.median(), values.max()
    return f"{middle:g}" if low == high else f"{middle:g} ({low} to {high})"


def report(planted: pd.DataFrame, table: pd.DataFrame, flags: Flags, *, n_ranked: int) -> str:
    """known_answers.md: the counts, then the planted parameters, then each mechanism's change by each run."""
    own = table[table["mechanism"] == table["label"]]
    said = zip(own["change"], own["rank"], own["holds"], strict=True)
    each = own.assign(said=[f"{change:+.2f}, {rank:.0f}{'' if holds else ' ✗'}" for change, rank, holds in said])
    first = each[each["draw"] == each.groupby(["run", "way"])["draw"].transform("min")]
    wide = first.assign(who=first["run"] + " " + first["way"]).pivot(index="mechanism", columns="who", values="said")
    wide = wide[list(dict.fromkeys(first["run"] + " " + first["way"]))]
    heads = planted[["parameter", "value", "measure", "sign", "effect_alone", "n_cells"]].round(2)
    parts = [
        f"{own['mechanism'].nunique()} mechanisms, {n_ranked} measures ranked; {flags.starts} control cells in each of "
        f"{len(flags.draws)} draws (median, range); {SHUFFLES:,} permutations of the labels.\n",
        markdown(counts(table)),
        "The planted parameter of each mechanism: the one that, moved alone in drawn cells, changes its measure most "
        "(in deviations of untreated cells).\n",
        markdown(heads.reset_index()),
        "Change of the planted parameter's measure in deviations of real control cells, and its rank; ✗ where it does "
        f"not hold; draw {flags.draws[0]}.\n",
        markdown(wide.reset_index()),
    ]
    return "\n".join(parts)


def markdown(table: pd.DataFrame) -> str:
    """A table as Markdown."""
    rows = [list(table.columns), ["---"] * len(table.columns), *table.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows) + "\n"


def main() -> int:
    """0 when it is done, 2 for bad input."""
    try:
        known_answers(tyro.cli(Flags, prog="known_answers.py", description=__doc__, config=(OmitArgPrefixes,)))
    except InputError as error:
        tell(f"known_answers.py: {error}")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
