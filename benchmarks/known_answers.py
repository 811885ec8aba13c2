"""Does a travel show what a mechanism does? Its measured change beside what was planted in simulated cells.

    phenolens demo demo                                       # or any study of a simulated screen, with more models
    python benchmarks/planted.py PLANTED
    python benchmarks/known_answers.py OUT --planted PLANTED/planted.csv --study demo/study

The planted parameter of a mechanism is the one that, moved alone, changes its declared measure most (planted.py; no
model takes part). For every run that decodes, control cells travel to each treatment of the mechanism, and the change
is measured that `phenolens travel` writes to change.csv, in deviations of real control cells: has the parameter's
measure the planted sign, and is its change the largest or second largest of all declared measures? Mechanisms that have
both hold. `any_holds` counts, less strictly, where first or second is a measure, with its sign, of any parameter that
the mechanism is seen to move. Ways: to the target cell (feature swap and straight line end in the same picture), to
medoids by their share of the cells, along the direction from the controls' mean to the treatment's. Decoders that
cannot keep a real cell themselves travel again with --residual.

To compare with: the same with the mechanisms' labels shuffled; the same of the real treated cells instead of decoded
ones (no picture can be expected to show more); and of their reconstructions. And for each run and way, of the five
largest changes of the real cells of each treatment, how many have the same sign in moved cells, and how large these
are.

OUT gets known_answers.csv (a row per run, way, draw of control cells, mechanism, and label it could have had),
agreement.csv (a row per run, way, draw and treatment) and known_answers.md.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import tyro
from tyro.conf import OmitArgPrefixes, Positional

from phenolens.core.bounds import Bounded, Bounds
from phenolens.core.errors import InputError
from phenolens.core.files import write_text
from phenolens.core.progress import tell, track
from phenolens.morphology.features import measures
from phenolens.runs.decoder import DecodingRun, open_decoding_runs
from phenolens.runs.embeddings import EmbeddedCells, embedded_cells
from phenolens.runs.real_change import measured_cells
from phenolens.study import Study
from phenolens.travels.compute import PRECISION, Traveller
from phenolens.travels.config import TravelConfig

CHANNELS = ("DNA", "tubulin", "actin")
SHUFFLES = 10_000
N_MEDOIDS = 3
N_LARGEST = 5  # changes of real cells that are looked for in moved cells
Way = Literal["target cell", "medoids", "direction"]
WAYS: dict[Way, dict[str, Any]] = {
    "target cell": {},
    "medoids": {"targets": "medoids", "medoids_by": "embedding"},
    "direction": {"way": "direction"},
}
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
    ways: tuple[Way, ...] = tuple(WAYS)  # which ways; all when left out

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
    agreements = []
    for run in runs:
        for way, draw, found, agreement in travels(study, run, flags):
            tables.append(held(alone, found[ranked], way, draw, run.name))
            agreements.append(agreement.assign(run=run.name, way=way, draw=draw))
            tell(f"{run.name}, {way}, draw {draw}: {counts(tables[-1])['holds'].iloc[0]} hold")
    table, agreement = (pd.concat(parts, ignore_index=True) for parts in (tables, agreements))
    write_text(flags.out / "known_answers.csv", table.to_csv(index=False))
    write_text(flags.out / "agreement.csv", agreement.to_csv(index=False))
    write_text(flags.out / "known_answers.md", report(planted, table, agreement, flags, n_ranked=len(ranked)))
    print((flags.out / "known_answers.md").read_text())
    tell(
        f"every mechanism: {flags.out / 'known_answers.csv'}; next: look at the frames, phenolens travel {flags.study}"
    )


def find_decoding_runs(study: Study, wanted: tuple[str, ...]) -> list[DecodingRun]:
    """The runs asked for, or all embedded ones that decode; what does not decode is said."""
    names = study.chosen_runs(wanted) if wanted else sorted(path.name for path in study.folder.glob("embeddings/*"))
    runs = open_decoding_runs(study, names, precision=PRECISION)
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


def travels(study: Study, run: DecodingRun, flags: Flags) -> Iterator[tuple[str, int, pd.DataFrame, pd.DataFrame]]:
    """For each way and draw of control cells the measured change, a row per mechanism, and the agreement."""
    cells = embedded_cells(study, run.name)
    traveller = Traveller(run, cells, measured_cells(study, run.store, cells.catalogue))
    of_mechanism = treatments(traveller.cells)
    yield "reconstructions", 0, reconstructed_changes(run, traveller.cells, of_mechanism), pd.DataFrame()
    residuals = (False,) if run.keeps_cells else (False, True)
    for way, residual, draw in product(flags.ways, residuals, flags.draws):
        name = f"{way}, residual" if residual else way
        steps = track(of_mechanism.items(), f"{run.name}: {name}", total=len(of_mechanism))
        config = {**WAYS[way], "residual": residual, "moved_cells": flags.starts, "seed": draw}
        each = {moa: [one_travel(traveller, rows, config) for rows in groups] for moa, groups in steps}
        changes = {moa: pd.DataFrame([change for change, _ in found]).mean() for moa, found in each.items()}
        rows = [row | {"mechanism": moa} for moa, found in each.items() for _, some in found for row in some]
        yield name, draw, pd.DataFrame(changes).T, pd.DataFrame(rows)


def one_travel(
    traveller: Traveller, rows: np.ndarray, config: dict[str, Any]
) -> tuple[pd.Series, list[dict[str, Any]]]:
    """The change of moved cells towards the treatment of these rows, and a row per population of how it agrees."""
    treatment = str(traveller.catalogue.cells["treatment"].iloc[rows[0]])
    found = traveller.measured_changes(TravelConfig(to=treatment, medoids=min(N_MEDOIDS, len(rows)), **config))
    shares = [population.share for _, population in found]
    change = weighted(pd.DataFrame([change.table["decoded"] for change, _ in found]), shares)
    return change, [agreed(change.largest()) | {"treatment": treatment} for change, _ in found]


def weighted(table: pd.DataFrame, shares: list[float]) -> pd.Series:
    """The mean of rows by their shares, without missing values."""
    known = table.notna().mul(shares, axis=0)
    return table.fillna(0).mul(shares, axis=0).sum() / known.sum()


def agreed(largest: pd.DataFrame) -> dict[str, Any]:
    """How many of the largest changes of real cells have their sign in moved cells, and the slope of these on those."""
    head = largest.head(N_LARGEST).dropna()
    slope = (head["real"] * head["decoded"]).sum() / np.square(head["real"]).sum() if len(head) else np.nan
    return {"n_largest": len(head), "n_agree": int(head["agrees"].sum()), "slope": slope}


def treatments(cells: EmbeddedCells) -> dict[str, list[np.ndarray]]:
    """Of each mechanism the rows of each of its active treatments, a compound at a dose."""
    table = cells.catalogue.cells
    treated = table[cells.catalogue.counted & (table["role"] != "control").to_numpy()]
    by = ["moa", "compound", "concentration_um"]
    groups: dict[str, list[np.ndarray]] = {}
    for (name, *_), group in treated.astype({"moa": str, "compound": str}).groupby(by, sort=True):
        groups.setdefault(name, []).append(group.index.to_numpy())
    return groups


def reconstructed_changes(
    run: DecodingRun, cells: EmbeddedCells, of_mechanism: dict[str, list[np.ndarray]]
) -> pd.DataFrame:
    """Reconstructed treated cells minus reconstructed control cells, a row per mechanism, in deviations of controls."""
    controls = cells.catalogue.rows(role="control")
    unit = measured(run.originals(controls)).std()
    control = measured(run.reconstructed(controls, cells.z[controls])).mean()
    rows = {name: np.concatenate(each) for name, each in of_mechanism.items()}
    of = {name: measured(run.reconstructed(each, cells.z[each])).mean() for name, each in rows.items()}
    return (pd.DataFrame(of).T - control) / unit


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


def agreement_counts(agreement: pd.DataFrame) -> pd.DataFrame:
    """A row per run and way: of the largest real changes of all treatments how many agree, and the median slope."""
    rows = []
    known = agreement[agreement["n_largest"] > 0]  # in others no measure changes clearly
    for (run, way), group in known.groupby(["run", "way"], sort=False):
        n, agree = int(group["n_largest"].sum()), int(group["n_agree"].sum())
        same = f"{agree} of {n} ({100 * agree / n:.0f} %)"
        rows.append({"run": run, "way": way, "same sign": same, "slope": f"{group['slope'].median():.2f}"})
    return pd.DataFrame(rows)


def report(planted: pd.DataFrame, table: pd.DataFrame, agreement: pd.DataFrame, flags: Flags, *, n_ranked: int) -> str:
    """known_answers.md: the counts, the agreement, the planted parameters, each mechanism's change by each run."""
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
        f"The {N_LARGEST} largest changes of the real cells of each treatment (interval without 0): how many have the "
        "same sign in moved cells; the slope of moved on real changes, median over treatments.\n",
        markdown(agreement_counts(agreement)),
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
