"""What the command line prints when a command is done: its result on stdout, the next command on stderr."""

import shlex
import sys
from collections.abc import Hashable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from phenolens.commands.score_commands import scores_folder_of
from phenolens.core.counted import counted
from phenolens.core.progress import tell
from phenolens.profiles.activity import activity_sentence
from phenolens.profiles.evaluate import Evaluation
from phenolens.profiles.score_table import not_counted_sentence
from phenolens.profiles.uncertainty import Comparison
from phenolens.profiles.whitening import Whitening
from phenolens.readiness import COMMAND_OF, default_run, scores_about
from phenolens.runs.scores import activity_of, headline_lines, profiles_in_words, queries_of
from phenolens.study import HEADLINE, Study

if TYPE_CHECKING:
    from phenolens.model_comparison.saved import ModelComparison

BROWSE = "open the report above in a browser; to browse the plates and cells: phenolens explore {} --open"
# What comes next; `study` and `out` are the folders that were given, `images` the flag that shows cells in fields.
NEXT = {verb: f"phenolens {after} {{study}}" for verb, after in pairwise(("crop", *COMMAND_OF.values()))} | {
    "crop": "phenolens train {study} --model imagenet",
    "simulate": "phenolens run STUDY --source {out} --layout bbbc021 (its true parameters: {out}/truth.parquet)",
    "measure": "phenolens explore {study} --open (maps and plates in the colours of a measure)",
    "run": BROWSE.format("{study}{images}"),
    "demo": BROWSE.format("{out}/study --source {out}/screen"),
    "report": BROWSE.format("{study}"),
    "features": "open the page in a browser; the table in the same folder has its numbers",
    "realism": "open that figure, or phenolens report {study}, which shows it; docs/training.md says how to improve it",
}
SHOWN = ("features", "report", "travel")  # commands that return a page or a folder to open


def print_result(verb: str, result: Any, given: dict[str, Any]) -> None:
    """Print what a command returned, a path on the last line, and the next command.

    Args:
        verb: Name of the command.
        result: What its function returned.
        given: What it was called with.
    """
    if show := globals().get(f"after_{verb}"):
        show(result, given)
    if verb in SHOWN:
        print(result.resolve())
    if verb in NEXT:
        folders = {name: shlex.quote(str(given[name])) for name in ("study", "out") if name in given}
        source = given.get("source")
        images = f" --source {shlex.quote(str(source))}" if source and Path(source).is_dir() else ""
        tell(f"next: {NEXT[verb].format(**folders, images=images)}")


def after_fetch(folder: Path, given: dict[str, Any]) -> None:
    """The command that cuts crops."""
    plates = [plate for plate in given["download"].plates if plate != str(folder)]
    named = f" --plates {' '.join(plates)}" if plates else ""
    tell(f"next (cells are found where no Nuclei.csv of CellProfiler lies in {folder}):")
    tell(f"phenolens crop STUDY --source {shlex.quote(str(folder))} --layout bbbc021{named}")


def after_check(found: pd.DataFrame, given: dict[str, Any]) -> None:
    """What was found and what is missing, as a table."""
    table = Table("", "found", title=str(given["source"]), title_justify="left")
    for _, part in found.groupby("missing"):
        table.add_section()
        for what, text in zip(part["what"], part["found"]):
            table.add_row(what, text)
    _console().print(table)
    if found.attrs["remark"]:
        tell(f"note: {found.attrs['remark']}")
    tell(f"next: {found.attrs['next']}")


def after_run(study: Study, given: dict[str, Any]) -> None:
    """The headline's scores, where all are, and the report's path."""
    _print_study(study)
    if not study.scores.empty:
        tell(f"other profiles' scores: {study.scores_path}, and the report")
    print(study.report_path.resolve())


after_demo = after_run


def after_evaluate(found: pd.DataFrame | Evaluation, given: dict[str, Any]) -> None:
    """The scores as a table; of a table of profiles also what the whitening achieved, and its folder."""
    if isinstance(found, pd.DataFrame):
        study = Study.open(given["source"])
        _print_study(study)
        if not study.scores.empty:
            print_scores(study.scores)
        tell(f"next: phenolens report {shlex.quote(str(given['source']))}")
        return
    print_evaluation(found)
    folder = scores_folder_of(Path(given["source"]), given["out"]).resolve()
    print(folder)
    pictures = " and the confusion_*.png next to it" if found.scores and found.score.confusion_figures else ""
    tell(f"next: open {folder / 'protocol.md'} (how the scores were made){pictures}")


def after_compare(compared: Comparison, given: dict[str, Any]) -> None:
    """The queries that changed, and the tests."""
    rows = [
        [str(name), row["moa"], row["predicted_a"], row["predicted_b"], "a" if row["right_a"] else "b"]
        for name, row in compared.changed.iterrows()
    ]
    if rows:
        _print_table(("query", "mechanism", "a", "b", "right"), rows)
    queries = counted(compared.n_treatments, "query", plural="queries")
    print(
        f"counted in both: {queries}; {compared.only_a_right} right in a alone, "
        f"{compared.only_b_right} in b alone; p = {compared.p_value:.3g} (signs of whole compounds flipped, "
        f"{given['draws']:,} times), {compared.p_value_mcnemar:.3g} (McNemar's exact test, as if queries were "
        "independent)"
    )


def after_benchmark(comparison: "ModelComparison", given: dict[str, Any]) -> None:
    """The table, and where it is."""
    print((comparison.folder / "table.md").read_text(encoding="utf-8"))
    print(comparison.folder.resolve())
    tell(f"next: phenolens report {shlex.quote(str(given['study']))}; or a model of your own (docs/training.md)")


def after_travel(folder: Path, given: dict[str, Any]) -> None:
    """Which pictures to view."""
    to = shlex.join([str(given["study"]), "--to", given["path"].to])
    if not given["pictures"]:
        tell("next: open measured.csv, which holds every number; --pictures png draws the strip")
    elif given["path"].targets == "mean":
        tell(f"next: open the strip; if the treated cells are a mixture: phenolens travel {to} --targets medoids")
    else:
        tell("next: open the populations, then the strip of each population")


def after_realism(saved: Any, given: dict[str, Any]) -> None:
    """The metrics with their spread and notes, and the figure's path."""
    from phenolens.image_realism.saved import HEADINGS, realism_rows

    _print_table(HEADINGS, realism_rows(saved.table))
    print("\n".join(saved.notes))
    print(saved.figure.resolve())
    tell(f"every measure is in {saved.folder / 'differences.csv'}")


def after_figure(figure: Any, given: dict[str, Any]) -> None:
    """The caption where the files do not have it, the description, and the files' paths."""
    from phenolens.plotting.style import alt_of, caption_of

    if not given["caption"]:
        tell(caption_of(figure))
    tell(f"description: {alt_of(figure)}")
    for path in given["out"]:
        print(path.resolve())


def after_assess(summary: pd.DataFrame | None, given: dict[str, Any]) -> None:
    """The results of each test and their files."""
    if summary is not None:
        for row in summary.to_dict("records"):
            files = map(str, summary.attrs["files"][row["assessment"]])
            print("\n".join([*_result_lines(Study(given["study"]), row), *files]))


def print_scores(scores: pd.DataFrame) -> None:
    """A study's scores as a table."""
    names = ["model", "seed", "statistics", "whitening", "protocol"]
    rows = [[*(str(row[name]) for name in names), *_accuracy(row)] for row in scores.to_dict("records")]
    _print_table((*names[:-1], "score", "right", "accuracy", "95 % interval"), rows)


def _print_study(study: Study) -> None:
    """The headline's scores, what is not counted in them, the activity of treatments, and how its profiles are made.

    Of activity the run is shown that the report shows.
    """
    runs = list(scores_about(study)["profiles"])
    run = default_run(study, runs)
    for line in headline_lines(study, runs):
        print(line)
    queries = queries_of(study, run)
    if queries is not None and (left_out := not_counted_sentence(queries)):
        print(f"NSC: {left_out}")
    if (table := activity_of(study, run)) is not None:
        print(f"activity, {run}: {activity_sentence(table)}")
    if scores_about(study)["config"].get("against_controls"):
        print_against_controls(pd.read_csv(study.scores_folder / run / "against_controls.csv"))
    _tell_headline(study)


def print_against_controls(table: pd.DataFrame) -> None:
    """The named groups against the controls."""
    shown = lambda value: "-" if pd.isna(value) else f"{value:.3g}"  # noqa: E731
    numbers = ("distance", "p_value", "accuracy", "accuracy_p_value", "mean_average_precision", "map_p_value")
    rows = [
        [
            row["name"],
            f"{row['n_wells']}, {row['n_control_wells']}",
            *map(shown, map(row.get, numbers)),
            row["left_out"],
        ]
        for row in table.to_dict("records")
    ]
    titles = ("against controls", "wells, controls", "distance", "p", "1-NN accuracy", "p", "mAP", "p", "left out")
    _print_table(titles, rows)


def _tell_headline(study: Study) -> None:
    """Which of the scores is the headline, and why."""
    whitening = study.headline["whitening"]
    why = "asked for by --headline"
    if whitening == HEADLINE["whitening"]:
        why = "on simulated screens no other was better beyond noise, at few or many cells a well (docs/definitions.md)"
    profiles = profiles_in_words(study, next(iter(scores_about(study)["profiles"])))
    tell(f"headline: mean, {whitening}: {profiles}; {why}")


def print_evaluation(evaluation: Evaluation) -> None:
    """Print the scores as a table, what the whitening achieved, and mAP."""
    rows = []
    for row in evaluation.as_table().to_dict("records"):
        by_chance = [f"{100 * row[name]:.1f} %" for name in ("chance", "shuffled")]
        rows.append([row["protocol"], row["queries"], *_accuracy(row), *by_chance, f"{row['p_value']:.2g}"])
    if rows:
        _print_table(("score", "of", "right", "accuracy", "95 % interval", "chance", "shuffled", "p"), rows)
    for one in evaluation.scores:
        if left_out := not_counted_sentence(one.score.queries):
            print(f"{one.score.protocol}: {left_out}")
    if achieved := whitening_in_short(evaluation.profiles.whitening):
        tell(achieved)
    questions = {"treatments": "wells find each other before controls", "mechanisms": "find their own kind"}
    for of, table in evaluation.precision.items():
        found = int((table["corrected_p_value"] < 0.05).sum())
        print(
            f"mAP of {of} ({questions[of]}): mean {table['mean_average_precision'].mean():.3f}; "
            f"{found} of {len(table)} with a corrected p below 0.05"
        )

    if "activity" in evaluation.activities:
        print(f"activity: {activity_sentence(evaluation.activities['activity'])}")
    if "against_controls" in evaluation.activities:
        print_against_controls(evaluation.activities["against_controls"])


def _console() -> Console:
    """As wide as the terminal; in a file or a pipe, wide enough for every table."""
    return Console() if sys.stdout.isatty() else Console(width=150)


def _print_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(*titles)
    for row in rows:
        table.add_row(*row)
    _console().print(table)


def _accuracy(row: dict[Hashable, Any]) -> tuple[str, str, str]:
    """The number that is right, its share, and the interval of that."""
    right = f"{row['n_correct']} of {row['n_treatments']}"
    return right, f"{100 * row['accuracy']:.1f} %", f"{100 * row['ci_low']:.0f} to {100 * row['ci_high']:.0f} %"


def whitening_in_short(whitening: Whitening) -> str:
    """Whether the controls span all directions, and what to do if not; empty where nothing was whitened."""
    recipe, certificates = whitening.recipe, whitening.certificates
    if recipe.whitening == "none" or not certificates:
        return ""
    where = "" if len(certificates) == 1 else f" in each of {len(certificates)} {recipe.whitened_over} groups"
    controls = _from_to(certificate.n_rows for certificate in certificates)
    rows = "controls" if recipe.learnt_on == "controls" else "rows"
    ranks, n_features = [certificate.rank for certificate in certificates], len(whitening.features)
    kept = min(recipe.n_components or n_features, n_features)
    if min(ranks) >= kept:
        return f"whitening: {controls} {rows}{where} vary in all {kept} directions that are kept"
    advice = [] if recipe.whitened_over == "all" else ["pool all plates (--whitened-over all)"]
    advice += ["use --whitening zca if you need named features"] if recipe.whitening == "pca" else []
    advice += [f"keep fewer directions (--n-components {min(ranks)})"]
    return (
        f"whitening: {controls} {rows}{where} vary in {_from_to(ranks)} of {n_features} directions, so the rest is not "
        f"whitened: {', or '.join(advice)}"
    )


def _from_to(numbers: Iterable[int]) -> str:
    low, high = min(found := list(numbers)), max(found)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _result_lines(study: Study, row: dict[Hashable, Any]) -> list[str]:
    title = (
        f"{row['assessment']}: {row['title']}, {row['n']} real and {counted(row['n'], 'synthetic cell')}, "
        f"{row['n_finished']} of {counted(row['n_assessors'], 'assessor')} finished"
    )
    if not row["n_finished"]:
        return [title, "  no results until an assessor has judged all pictures"]
    texts = {"synthetic passed as real": _share(row, "passed"), "real called synthetic": _share(row, "false_alarms")}
    for label, name in (("d'", "d_prime"), ("bias c", "criterion"), ("Fleiss' kappa", "kappa")):
        if not pd.isna(row[name]):
            texts[label] = f"{row[name]:.2f} (95 % interval {row[f'{name}_low']:.2f} to {row[f'{name}_high']:.2f})"
    texts["median seconds per picture"] = "-" if pd.isna(row["seconds"]) else f"{row['seconds']:.1f}"
    lines = [title, *(f"  {label:26}{text}" for label, text in texts.items())]
    if row["each_channel"]:
        from phenolens.blinded_test.compute import assessments, results

        for view in results(assessments(study)[row["assessment"]]).shown.to_dict("records"):
            passed, alarms = _share(view, "passed"), _share(view, "false_alarms")
            lines.append(f"  shown {view['shown']}: passed as real {passed}, false alarms {alarms}")
    return lines


def _share(row: dict[Hashable, Any], name: str) -> str:
    share, low, high = (100 * row[f"{name}{end}"] for end in ("", "_low", "_high"))
    return f"{share:.1f} % (95 % interval {low:.1f} to {high:.1f})"
