"""Scores in the layout of the paper's Table 1, and the main score as a sentence.

Lafarge et al. 2019, Table 1: mean ± standard deviation of 3 runs; the rows of Ando and Singh are quoted there.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.models import MODELS, model_title, preferred_first

# The columns of Table 1: the statistics and whitening of the profiles, and the title.
KINDS = {
    ("mean", "none"): "Mean",
    ("mean", "whitened"): "Mean +Whitened",
    ("mean+sd", "none"): "Mean+S.D.",
    ("mean+sd", "whitened"): "Mean+S.D. +Whitened",
}
STATISTICS = tuple(dict.fromkeys(statistics for statistics, _ in KINDS))


@dataclass(frozen=True)
class PublishedRow:
    """A row of the paper's Table 1: percent and deviation in the order of KINDS, None where not given."""

    protocol: str
    method: str
    percent: tuple[tuple[float, float | None] | None, ...]

    @property
    def texts(self) -> list[str]:
        """`90.6 ± 1.5` of each column, a dash where there is none."""
        return [" ± ".join(f"{n:.1f}" for n in entry or () if n is not None) or "–" for entry in self.percent]


TABLE_1 = (
    PublishedRow("NSC", "VAE+ (Lafarge 2019)", ((90.6, 1.5), (90.3, 1.0), (92.2, 1.7), (92.9, 2.4))),
    PublishedRow("NSC", "VAE (Lafarge 2019)", ((83.5, 1.0), (80.6, 4.4), (90.9, 1.1), (87.1, 0.6))),
    PublishedRow("NSC", "AE (Lafarge 2019)", ((87.6, 2.0), (92.2, 1.0), (90.3, 0.0), (92.5, 0.6))),
    PublishedRow("NSC", "Ando 2017", (None, (96.0, None), None, None)),
    PublishedRow("NSC", "Singh 2014", ((90.0, None), None, None, None)),
    PublishedRow("NSCB", "VAE+ (Lafarge 2019)", ((71.0, 1.2), (76.1, 1.1), (72.5, 2.3), (82.2, 2.6))),
    PublishedRow("NSCB", "VAE (Lafarge 2019)", ((68.8, 0.6), (69.9, 5.1), (74.6, 0.6), (71.0, 0.6))),
    PublishedRow("NSCB", "AE (Lafarge 2019)", ((75.0, 2.0), (79.0, 0.6), (76.8, 0.7), (80.8, 1.7))),
    PublishedRow("NSCB", "Ando 2017", (None, (95.0, None), None, None)),
    PublishedRow("NSCB", "Singh 2014", ((85.0, None), None, None, None)),
)

# method, NSC, NSCB, whether it can decode its representations into images
OTHERS = (
    ("CytoGAN (Goldsborough 2017)", "68", "–", "no"),
    ("Factor analysis (Ljosa 2013)", "94", "77", "no"),
    ("Pretrained network + TVN (Ando 2017)", "96", "95", "no"),
    ("Weak labels (Caicedo 2018, a run of their notebook)", "97.1", "87.0", "no"),
    ("Compound labels, WS-DINO (2022)", "98", "96", "no"),
)

# The compounds with a published mechanism: a screen whose treatments are of exactly these is BBBC021.
COMPOUNDS = frozenset(
    (
        "ALLN, AZ-A, AZ-C, AZ-J, AZ-U, AZ138, AZ258, AZ841, MG-132, PD-169316, PP-2, alsterpaullone, anisomycin, "
        "bryostatin, camptothecin, chlorambucil, cisplatin, colchicine, cyclohexamide, cytochalasin B, cytochalasin D, "
        "demecolcine, docetaxel, emetine, epothilone B, etoposide, floxuridine, lactacystin, latrunculin B, "
        "methotrexate, mevinolin/lovastatin, mitomycin C, mitoxantrone, nocodazole, proteasome inhibitor I, "
        "simvastatin, taxol, vincristine"
    ).split(", ")
)


def is_bbbc021(cells: pd.DataFrame) -> bool:
    """Whether a table of cells (columns role and compound) is of BBBC021: then published scores stand beside it."""
    return set(cells.loc[cells["role"] == "treated", "compound"]) == COMPOUNDS


SCORE_COLUMNS = "model seed statistics whitening protocol accuracy n_treatments n_correct ci_low ci_high".split()
PROTOCOLS = ("NSC", "NSCB")
LEFT_OUT = {"NSC": "their own compound is left out", "NSCB": "their own compound and batch are left out"}
MATCHED = {"NSC": "another compound", "NSCB": "another compound in another batch"}


@dataclass(frozen=True)
class ScoreCell:
    """One cell of the table."""

    value: str  # percent, with ± over seeds where there are several
    detail: str = ""  # interval, counts
    is_headline: bool = False


@dataclass(frozen=True)
class ScoreRow:
    """A model's row under one protocol, in the order of the table's columns."""

    protocol: str
    method: str
    cells: tuple[ScoreCell, ...]
    published: bool


def score_columns(scores: pd.DataFrame, headline: str = "") -> dict[tuple[str, str], str]:
    """The table's columns: the statistics and whitening of the profiles, and the title.

    The profiles that the headline scores come first, then those of Table 1. The whitened columns hold the first
    whitening that the scores name.

    Args:
        scores: In the layout of scores.csv.
        headline: The whitening of the headline's profiles; empty for the columns of Table 1 alone.
    """
    whitening = first_whitening(scores)
    columns = {
        (statistics, whitening if named == "whitened" else named): title for (statistics, named), title in KINDS.items()
    }
    first = ("mean", headline)
    if _of_kind(scores, first).empty:
        return columns
    return {first: KINDS.get(first, f"Mean +{headline.capitalize()}")} | {
        kind: title for kind, title in columns.items() if kind != first
    }


def score_rows(scores: pd.DataFrame, *, with_published: bool, headline: str = "") -> list[ScoreRow]:
    """The rows of Table 1 from scores in the layout of scores.csv: by protocol, ours first, then published ones.

    Several seeds become mean ± standard deviation. Columns and `headline` are those of `score_columns`.
    """
    if scores.empty:
        return []
    _check(scores)
    columns = score_columns(scores, headline)
    rows = []
    for protocol in _in_order(scores["protocol"], PROTOCOLS):
        ours = scores[scores["protocol"] == protocol]
        for model in _in_order(ours["model"], sorted(MODELS, key=preferred_first)):
            of_model = ours[ours["model"] == model]
            cells = tuple(
                replace(_cell(_of_kind(of_model, kind)), is_headline=kind == ("mean", headline)) for kind in columns
            )
            rows.append(ScoreRow(protocol, model_title(model), cells, published=False))
        if with_published:
            rows += [_published(row, columns.values()) for row in TABLE_1 if row.protocol == protocol]
    return rows


def headline_scores(rows: Sequence[ScoreRow]) -> dict[str, dict[str, ScoreCell]]:
    """The headline's score of each model by protocol; empty where the headline's profiles were not scored."""
    found: dict[str, dict[str, ScoreCell]] = {}
    for row in rows:
        for cell in row.cells:
            if cell.is_headline:
                found.setdefault(row.method, {})[row.protocol] = cell
    return found


def outside_table(scores: pd.DataFrame, headline: str = "") -> pd.DataFrame:
    """The scores that have no column of `score_columns`, another whitening or statistic, a row per kind of score."""
    inside = pd.MultiIndex.from_frame(scores[["statistics", "whitening"]]).isin(list(score_columns(scores, headline)))
    rows = []
    for (protocol, model, statistics, whitening), group in (
        scores[~inside]
        .sort_values("protocol", kind="stable")
        .groupby(["protocol", "model", "statistics", "whitening"], sort=False)
    ):
        cell = _cell(group)
        rows.append((protocol, model_title(str(model)), statistics, whitening, cell.value, cell.detail))
    titles = ["protocol", "model", "statistics", "whitening", "% right", "95 % interval · counts"]
    return pd.DataFrame(rows, columns=titles)


def first_whitening(scores: pd.DataFrame) -> str:
    """The whitening of the whitened columns: the first that is not `none`; empty when there is none."""
    named = [str(name) for name in scores["whitening"] if str(name) != "none"]
    return named[0] if named else ""


def not_counted_sentence(queries: pd.DataFrame) -> str:
    """How many queries of a score could not be counted, and why; empty where all are counted."""
    reasons = queries["reason"][~queries["counted"]].value_counts()
    if reasons.empty:
        return ""
    each = "; ".join(f"{reason}: {n:,}" for reason, n in reasons.items())
    return f"{reasons.sum():,} of {len(queries):,} treatments cannot be counted ({each})"


def verdict_sentence(scores: pd.DataFrame, *, chance: float | None = None, shuffled: float | None = None) -> str:
    """The main result as a sentence, from the score rows (one per seed) of one kind of score.

    `chance` and `shuffled` are accuracies (0 to 1) of guessing, and of the same profiles with shuffled labels.
    """
    _check(scores)
    kinds = scores[["model", "statistics", "whitening", "protocol"]].drop_duplicates()
    if len(kinds) != 1:
        raise InputError(f"{len(kinds)} kinds of score for one sentence; expected rows that differ in their seed alone")
    row = scores.iloc[0]
    protocol = str(row["protocol"])
    others = [
        f"{name} {_percent(share)} %"
        for name, share in (("chance", chance), ("shuffled labels", shuffled))
        if share is not None
    ]
    beside = "; " + ", ".join(others) if others else ""
    subject = f"{model_title(str(row['model']))} matches"
    matched = f"to {MATCHED.get(protocol, protocol)} of the same mechanism"
    if scores["accuracy"].isna().any():
        return f"{protocol} could not be scored: no treatment has a candidate of its own mechanism left."
    treatments = counted(int(row["n_treatments"]), "treatment")
    if len(scores) > 1:
        return (
            f"{subject} {scores['n_correct'].mean():.1f} of {treatments} {matched} "
            f"({protocol} {_mean_sd(scores)} %, mean ± standard deviation over {len(scores)} seeds{beside})."
        )
    return (
        f"{subject} {int(row['n_correct'])} of {treatments} {matched} "
        f"({protocol} {_percent(row['accuracy'])} %, 95 % interval {_interval(row, ' to ')}{beside})."
    )


def _check(scores: pd.DataFrame) -> None:
    """InputError when a column is missing, there is no row, or an accuracy is not 0 to 1."""
    missing = [name for name in SCORE_COLUMNS if name not in scores.columns]
    if missing or scores.empty:
        raise InputError(
            f"scores: {'no column ' + ', '.join(missing) if missing else 'no rows'}; expected the layout of "
            "scores.csv, as evaluate writes it"
        )
    out_of_range = scores[(scores["accuracy"] < 0) | (scores["accuracy"] > 1)]
    if len(out_of_range):
        row = out_of_range.iloc[0]
        raise InputError(f"scores: accuracy {row['accuracy']} of model {row['model']}; expected a share from 0 to 1")


def _cell(scores: pd.DataFrame) -> ScoreCell:
    scores = scores[scores["accuracy"].notna()]
    if scores.empty:
        return ScoreCell("–")
    if len(scores) > 1:
        return ScoreCell(_mean_sd(scores), f"{len(scores)} seeds, n = {int(scores['n_treatments'].iloc[0])}")
    row = scores.iloc[0]
    return ScoreCell(
        _percent(row["accuracy"]), f"{_interval(row, '–')} · {int(row['n_correct'])} of {int(row['n_treatments'])}"
    )


def _of_kind(scores: pd.DataFrame, kind: tuple[str, str]) -> pd.DataFrame:
    return scores[(scores[["statistics", "whitening"]] == kind).all(axis=1)]


def _published(row: PublishedRow, titles: Iterable[str]) -> ScoreRow:
    """The row under these columns; a dash where Table 1 lacks one."""
    texts = dict(zip(KINDS.values(), row.texts))
    return ScoreRow(row.protocol, row.method, tuple(ScoreCell(texts.get(title, "–")) for title in titles), True)


def _mean_sd(scores: pd.DataFrame) -> str:
    """Over seeds, with the n - 1 deviation."""
    return f"{_percent(scores['accuracy'].mean())} ± {_percent(scores['accuracy'].std(ddof=1))}"


def _interval(row: pd.Series, to: str) -> str:
    if pd.isna(row["ci_low"]) or pd.isna(row["ci_high"]):
        return "not known"
    return f"{100 * row['ci_low']:.0f}{to}{100 * row['ci_high']:.0f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _in_order(names: pd.Series, known: Iterable[str]) -> list[str]:
    present = list(dict.fromkeys(names.astype(str)))
    order = [name for name in known if name in present]
    return order + [name for name in present if name not in order]
