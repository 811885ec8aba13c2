"""A study's `comparison/` folder: the table of all entries as CSV files and as a page of text, and the scatter."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from phenolens.core.errors import InputError
from phenolens.core.files import read_json, write_json, write_text, write_whole
from phenolens.model_comparison.claims import claims
from phenolens.model_comparison.figure import score_against_realism
from phenolens.plotting.style import png
from phenolens.profiles.mechanism_classifier import CLASSIFIED
from phenolens.profiles.score_table import KINDS, OTHERS, TABLE_1
from phenolens.readiness import profile_source
from phenolens.study import Study

# The columns of the printed table: those of the paper's Table 1, and the recommended recipe.
SHOWN = {**KINDS, ("mean", "aligned"): "Mean +Aligned"}


@dataclass(frozen=True)
class ModelComparison:
    """A finished comparison."""

    folder: Path
    scores: pd.DataFrame  # a row per entry and kind of score
    facts: pd.DataFrame  # a row per entry: what it is, and what it costs


def save(
    study: Study,
    scores: pd.DataFrame,
    facts: pd.DataFrame,
    *,
    runs: Iterable[str],
    headline: str,
    published: bool,
) -> ModelComparison:
    """Write `scores.csv`, `models.csv`, `table.md`, `about.json` and, where something decodes, `realism.png`."""
    folder, origin = study.comparison_folder, study.crops.origin
    (folder / "about.json").unlink(missing_ok=True)  # written last: without it the folder is not complete
    write_text(folder / "scores.csv", scores.to_csv(index=False))
    write_text(folder / "models.csv", facts.to_csv(index=False))
    write_text(folder / "table.md", as_text(scores, facts, headline=headline, published=published, origin=origin))
    figure = score_against_realism(scores, facts, headline=headline, origin=origin)
    if figure is None:
        (folder / "realism.png").unlink(missing_ok=True)
    else:
        with write_whole(folder / "realism.png") as file:
            file.write(png(figure))
    write_json(folder / "about.json", {"profiles": {run: profile_source(study, run) for run in runs}})
    return ModelComparison(folder, scores, facts)


def saved_comparison(study: Study) -> ModelComparison | None:
    """The saved comparison; None where there is none, or profiles changed since."""
    folder = study.comparison_folder
    if not (folder / "about.json").exists():
        return None
    profiles = read_json(folder / "about.json", remedy="run `phenolens benchmark` again")["profiles"]
    try:
        if any(profile_source(study, run) != source for run, source in profiles.items()):
            return None
    except InputError:  # a run was removed, or is not profiled any more
        return None
    return ModelComparison(folder, pd.read_csv(folder / "scores.csv"), pd.read_csv(folder / "models.csv"))


def shown_scores(scores: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The printed table of each protocol: a row per entry, and the columns of SHOWN."""
    return {
        str(protocol): pd.DataFrame(_score_rows(of_protocol, SHOWN), columns=["", *SHOWN.values()])
        for protocol, of_protocol in scores.groupby("protocol", sort=False)
    }


def shown_facts(facts: pd.DataFrame, *, origin: str) -> pd.DataFrame:
    """What each entry is and costs, as text: a row per entry."""
    titles = ["", "labels", "outside data", "parameters", "features", "turns", "decodes"]
    titles += [f"told from {origin} cells", "mAP", "fit, s", "embed a cell, ms"]
    return pd.DataFrame([_fact_row(row) for _, row in facts.iterrows()], columns=titles)


def as_text(scores: pd.DataFrame, facts: pd.DataFrame, *, headline: str, published: bool, origin: str) -> str:
    """The comparison as Markdown: a table per protocol, tests against others, and what each entry is and costs."""
    main = scores[(scores["statistics"] == "mean") & (scores["whitening"] == headline)]
    parts = ["# Every encoder on the same cells", ""]
    for protocol, of_protocol in scores.groupby("protocol", sort=False):
        n = int(of_protocol["n_treatments"].max())
        parts += [f"## {protocol}, % of {n} treatments right", ""]
        parts += _markdown(["", *SHOWN.values()], _score_rows(of_protocol, SHOWN))
        if others := _further_kinds(of_protocol):
            parts += [
                "Other profiles of the same cells:",
                "",
                *_markdown(["", *others.values()], _score_rows(of_protocol, others)),
            ]
        if published:
            rows = [[row.method, *row.texts, ""] for row in TABLE_1 if row.protocol == protocol]
            parts += ["Published on BBBC021, on other cells:", ""]
            parts += _markdown(["", *SHOWN.values()], rows)
    parts += [
        "Each score is the mean over seeds, ± their standard deviation where there are several. In brackets: the 95 %",
        "interval over compounds. Where features outnumber control wells, whitening leaves the axes that the controls",
        "do not span as they come, which is arbitrary; medians of wells along them can move a score by some points.",
        "",
        f"## Tests (mean, {headline})",
        "",
        "p-values of paired sign-flip tests over compounds, of the mean over seeds.",
        "",
    ]
    parts += _markdown(["", "protocol", "against VAE+", "against PCA", "against itself untrained"], _tests(main))
    claimed = claims(scores)
    if len(claimed):
        parts += ["## What the papers claim, and what holds here", ""]
        parts += _markdown([*claimed.columns], claimed.to_numpy().tolist())
    parts += [f"## By other rules (mean, {headline})", ""]
    parts += [
        "Over compounds: each compound counts once, however many doses it has, as in CytoGAN's numbers. Classified: a",
        "linear classifier is shown the mechanisms of all other compounds (and batches). It sees what no score above",
        "sees: a reference, not a rival, and it can also get less right.",
        "",
    ]
    parts += _by_other_rules(main, facts)
    parts += ["## What each is, and what it costs", ""]
    shown = shown_facts(facts, origin=origin)
    parts += _markdown([*shown.columns], shown.to_numpy().tolist())
    parts += [
        "Labels: those of cells that it learns from, never a mechanism. Turns: orientations of a crop that its",
        "embedding is the mean of. Decodes: whether it turns embeddings into pictures of cells.",
        f"Told from {origin} cells: share of reconstructed cells (samples: drawn ones, of models that do not",
        f"reconstruct) and {origin} ones that a classifier calls correctly; 0.5 is a guess.",
        "Seconds are of this machine.",
        "",
    ]
    if published:
        parts += ["Others, published, by their own rules:", ""]
        parts += _markdown(["", "NSC", "NSCB", "decodes"], [list(row) for row in OTHERS])
    return "\n".join(parts)


def _further_kinds(scores: pd.DataFrame) -> dict[tuple[str, str], str]:
    """The kinds of profiles by `profile --methods`, as they are and whitened, and their titles."""
    found = dict.fromkeys(zip(scores["statistics"], scores["whitening"]))
    usual = {statistics for statistics, _ in SHOWN}
    titles = {"none": "", "whitened": " +Whitened"}
    return {(s, w): f"{s}{titles[w]}" for s, w in found if s not in usual and w in titles}


def _score_rows(scores: pd.DataFrame, kinds: Iterable[tuple[str, str]]) -> list[list[str]]:
    rows = []
    for title, of_entry in scores.groupby("title", sort=False):
        by_kind = {(row["statistics"], row["whitening"]): _score(row) for _, row in of_entry.iterrows()}
        rows.append([str(title), *(by_kind.get(kind, "–") for kind in kinds)])
    return rows


def _score(row: pd.Series) -> str:
    """`66.0 ± 1.2 (55–76)`."""
    deviation = "" if pd.isna(row["sd"]) else f" ± {100 * row['sd']:.1f}"
    return f"{100 * row['accuracy']:.1f}{deviation} ({100 * row['ci_low']:.0f}–{100 * row['ci_high']:.0f})"


def _tests(main: pd.DataFrame) -> list[list[str]]:
    names = ("p_vaeplus", "p_pca", "p_untrained")
    return [
        [row["title"], row["protocol"], *(_number(row.get(name), "{:.4f}") for name in names)]
        for row in main.to_dict("records")
    ]


def _by_other_rules(main: pd.DataFrame, facts: pd.DataFrame) -> list[str]:
    over_compounds = main.pivot_table("over_compounds", "entry", "protocol", sort=False)
    columns = {f"{protocol} over compounds": over_compounds[protocol] for protocol in over_compounds}
    classified = facts.set_index("entry").filter(like=CLASSIFIED)
    columns |= {f"{str(name).removeprefix(CLASSIFIED)} classified": classified[name] for name in classified}
    rows = [
        [str(row["title"]), *(_number(100 * column[row["entry"]], "{:.1f}") for column in columns.values())]
        for _, row in facts.iterrows()
    ]
    return _markdown(["", *columns], rows)


def _fact_row(row: pd.Series) -> list[str]:
    return [
        str(row["title"]),
        str(row["labels"]),
        str(row["outside_data"]),
        _number(row["parameters"], "{:,.0f}"),
        f"{row['features']:,}",
        _number(row["turns"], "{:.0f}"),
        "yes" if row["decodes"] else "no",
        _number(row["realism"], "{:.2f}") + (" (samples)" if row["pictures"] == "samples" else ""),
        _number(row["map"], "{:.3f}"),
        _number(row["fit_seconds"], "{:,.0f}"),
        _number(row["embed_ms"], "{:.1f}"),
    ]


def _number(value: object, form: str) -> str:
    return "–" if value is None or pd.isna(value) else form.format(value)  # type: ignore[call-overload]


def _markdown(titles: list[str], rows: list[list[str]]) -> list[str]:
    lines = [titles, ["---"] * len(titles), *rows]
    return [*("| " + " | ".join(cells) + " |" for cells in lines), ""]
