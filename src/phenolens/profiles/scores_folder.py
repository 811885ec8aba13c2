"""The files of scores: written and read, and the folder of a table's scores, replaced as a whole or not at all.

While a folder `out` is written, `.out.lock` (held), `.out.partial` (the new one), `.out.old` and `.out.gone` (older
ones) are next to it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from phenolens import __version__
from phenolens.core.errors import InputError, Interrupted
from phenolens.core.files import alone, read_json, write_h5ad, write_json, write_text, write_whole
from phenolens.core.names import shortened
from phenolens.profiles.evaluate import Evaluation, Scored, held_out
from phenolens.profiles.profiles import TRIMMED_SHARE, metadata
from phenolens.profiles.score_table import LEFT_OUT
from phenolens.profiles.within_treatments import SHRINKAGE

if TYPE_CHECKING:
    from phenolens.profiles.nsc import Score

FORMAT = "phenolens scores 1"
ABOUT = "about.json"
OF_THE_SYSTEM = (".DS_Store", "Thumbs.db", "desktop.ini")  # files that a file browser leaves in a folder
LISTED = 1000  # names in a list at most
QUERY_COLUMNS = ("treatment", "compound", "concentration_um", "moa", "counted", "right", "neighbour", "predicted")


def save_evaluation(evaluation: Evaluation, out: Path) -> None:
    """Keep the evaluation in `out`, which `score_folder` holds, in place of older scores."""
    folder = beside(out, "partial")
    write_text(folder / "scores.csv", evaluation.as_table().to_csv(index=False))
    write_text(folder / "protocol.md", protocol_text(evaluation))
    for scored in evaluation.scores:
        name = file_name(scored.score)
        title = f"{evaluation.source}: {scored.queries} by their nearest neighbour ({scored.score.protocol})"
        confusion = folder / f"confusion_{name}.csv"
        write_score(scored, queries=folder / f"neighbours_{name}.csv", confusion=confusion)
        if evaluation.score.confusion_figures:
            draw_confusion(scored, confusion.with_suffix(".png"), title=title)
    for what, table in evaluation.activities.items():
        write_text(folder / f"{what}.csv", table.to_csv(index=False))
    for of, name in (("treatments", "replicates"), ("mechanisms", "mechanisms")):
        if of in evaluation.precision:
            write_text(folder / f"precision_{name}.csv", evaluation.precision[of].to_csv(index=False))
    if evaluation.profiles.wells is not None:
        write_h5ad(folder / "wells.h5ad", evaluation.profiles.wells)
        write_h5ad(folder / "wells_scaled.h5ad", evaluation.profiles.whitened)
    write_h5ad(folder / "treatments.h5ad", evaluation.profiles.treatments)
    files = sorted([path.name for path in folder.iterdir()] + [ABOUT])
    write_json(folder / ABOUT, {"format": FORMAT, "version": __version__} | evaluation.made_with | {"files": files})
    put_in_place(out)


def protocol_text(evaluation: Evaluation) -> str:
    """The page (Markdown) of an evaluation, filled from the settings and objects that made the scores."""
    from phenolens.plotting.page import render_page

    profiles = evaluation.profiles
    obs = metadata(profiles.whitened, ("role", "plate", "batch"))
    return render_page(
        Path(__file__).parent / "templates",
        "protocol.md",
        listed=lambda names: shortened(list(names), LISTED),
        evaluation=evaluation,
        table=evaluation.table,
        profiles=profiles,
        config=evaluation.config,
        recipe=evaluation.recipe,
        score=evaluation.score,
        obs=obs,
        n_of={role: int((obs["role"] == role).sum()) for role in ("treated", "control", "other")},
        held_out={protocol: " or ".join(held_out(protocol)) for protocol in evaluation.score.protocols},
        arbitrary_axes=_has_arbitrary_axes(evaluation),
        trimmed_percent=100 * TRIMMED_SHARE,
        shrinkage=SHRINKAGE,
        version=__version__,
    )


def _has_arbitrary_axes(evaluation: Evaluation) -> bool:
    """Whether treatment profiles depend on the eigensolver: a mean over wells, like every distance, does not."""
    profiles, recipe = evaluation.profiles, evaluation.recipe
    n_features = len(profiles.whitening.features)
    kept = min(recipe.n_components or n_features, n_features)
    spanned = all(certificate.rank >= kept for certificate in profiles.whitening.certificates)
    is_rotated = recipe.whitening == "pca" and profiles.rows != "treatments"
    return is_rotated and not spanned and evaluation.config.well_statistic != "mean"


def write_score(scored: Scored, *, queries: Path, confusion: Path) -> None:
    """Write a score's table of queries, as `read_queries` reads it, and its confusion matrix."""
    write_text(queries, scored.score.queries.to_csv(index_label="row"))
    write_text(confusion, scored.score.confusion.to_csv())


def draw_confusion(scored: Scored, path: Path, *, title: str) -> None:
    """Write the confusion matrix as a PNG with its caption."""
    from phenolens.plotting.confusion_matrix import confusion_matrix
    from phenolens.plotting.style import png

    figure = confusion_matrix(scored.score.confusion, title=title, what=scored.queries, how=caption(scored))
    with write_whole(path) as file:
        file.write(png(figure))


def caption(scored: Scored) -> str:
    """Accuracy with its interval and chance, and which candidates are excluded."""
    score, what = scored.score, scored.queries
    vote = ", each compound one vote" if score.conventions["averaged_over"] == "compounds" else ""
    left_out = LEFT_OUT.get(
        score.protocol, f"those of the same {' or '.join(score.conventions['held_out'].split('+'))} are left out"
    )
    return (
        f"Accuracy{vote}: {100 * score.accuracy:.1f} % (95 % interval {100 * score.ci_low:.0f} to "
        f"{100 * score.ci_high:.0f} %; by chance {100 * score.chance:.1f} %). Neighbours are sought among the other "
        f"{what} with a mechanism; {left_out}."
    )


def file_name(score: Score) -> str:
    """A protocol as part of a file's name: NSC, NSCB, or what is held out."""
    return score.protocol if score.protocol in ("NSC", "NSCB") else score.conventions["held_out"]


def read_queries(path: Path) -> pd.DataFrame:
    """Read a `neighbours_*.csv` of a table or a study: a row per query by its name, `counted` and `right` as booleans.

    InputError on a file that is not such a table, naming the row where it is one row's fault.
    """
    renew = "run `phenolens evaluate` again"
    try:
        table = pd.read_csv(path, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: damaged ({error}); {renew}") from error
    missing = [name for name in QUERY_COLUMNS if name not in table]
    if missing:
        raise InputError(f"{path}: no column {missing[0]}; expected a neighbours_*.csv of `phenolens evaluate`")
    for name in ("counted", "right"):
        text = table[name].astype(str)
        bad = ~text.isin(["True", "False"])
        if bad.any():
            raise InputError(
                f'{path}, row {int(bad.to_numpy().argmax()) + 2}: {name} is "{text[bad].iloc[0]}", expected True or '
                f"False; {renew}"
            )
        table[name] = text == "True"
    if "distance" in table:
        table["distance"] = pd.to_numeric(table["distance"], errors="coerce")
    named_by = "treatment" if table["treatment"].is_unique or "row" not in table else "row"
    twice = table[named_by][table[named_by].duplicated()]
    if len(twice):
        unnamed = ", and there is no column row" if named_by == "treatment" else ""
        raise InputError(
            f'{path}: {named_by} "{twice.iloc[0]}" is listed twice{unnamed}; expected each query once: {renew}'
        )
    return table.set_index(table[named_by].astype(str).rename("row")).drop(columns="row", errors="ignore")


def protocol_of(path: Path) -> str:
    """The protocol of a `neighbours_*.csv` by its name: what is held out, sorted; empty where the file is renamed."""
    words = path.stem.split("_")
    if words[0] != "neighbours" or len(words) < 2:
        return ""
    try:
        return "+".join(sorted(held_out(words[1])))
    except InputError:
        return ""


@contextmanager
def score_folder(out: Path, *, source: Path) -> Iterator[Path]:
    """Hold `out` for one evaluation of the table `source`; gives its real path, checked before anything is computed.

    Files that a killed process left are cleaned up first, and folders made for `out` are removed again when nothing
    was kept in them. InputError where `out` may not be replaced, cannot be written, or another process holds it.
    Interrupted where the process was stopped with the new scores already in place.
    """
    folder = _place(out, source)
    lock = beside(folder, "lock")
    began_with: int | None = None
    try:
        with ExitStack() as held:
            held.callback(_remove_empty, [parent for parent in folder.parents if not parent.exists()])
            try:
                folder.parent.mkdir(parents=True, exist_ok=True)
                held.enter_context(alone(lock, doing=f"scoring into {folder.name}"))
                held.callback(lock.unlink, missing_ok=True)
                settle(folder)
            except OSError as error:
                raise InputError(f"--out {out}: cannot be written ({error.strerror}); name another folder") from error
            held.callback(settle, folder)
            check_folder(folder)
            began_with = _inode(folder)
            yield folder
    except KeyboardInterrupt:
        if began_with is None or _inode(folder) == began_with:
            raise
        raise Interrupted(f"stopped; the new scores are in {folder} already") from None


def check_folder(out: Path) -> None:
    """InputError unless scores can be kept in `out`: a new or empty folder, or one with nothing but older scores."""
    if not out.exists():
        return
    there = sorted(path.name for path in out.iterdir() if path.name not in OF_THE_SYSTEM) if out.is_dir() else [""]
    if not there:
        return
    ours = _files_of(out)
    if not ours:
        raise InputError(f"--out {out}: exists and holds no scores of phenolens; name a new or empty folder")
    others = [name for name in there if name not in ours or not (out / name).is_file()]
    if others:
        more = f" and {len(others) - 1:,} more" if len(others) > 1 else ""
        raise InputError(
            f'--out {out}: holds "{others[0]}"{more} besides older scores; `phenolens evaluate` did not write it and '
            "would delete it; move it elsewhere, or name another folder"
        )
    if not os.access(out, os.W_OK):
        raise InputError(f"--out {out}: its older scores cannot be replaced (Permission denied); name another folder")


def settle(out: Path) -> None:
    """Clean up what a killed process left next to `out`: older scores are restored unless newer ones are in place."""
    old, gone = beside(out, "old"), beside(out, "gone")
    for leftover in (gone, beside(out, "partial")):
        shutil.rmtree(leftover, ignore_errors=True)
    if not old.exists():
        return
    if _files_of(out):
        old.rename(gone)  # under its own name it is whole at any moment
        shutil.rmtree(gone, ignore_errors=True)
    elif not out.exists() or not any(out.iterdir()):
        old.replace(out)


def put_in_place(out: Path) -> None:
    """Rename `.out.partial` to `out`; older scores are moved aside before and removed after.

    InputError where other files have been put into `out` meanwhile.
    """
    check_folder(out)
    if out.exists():
        out.rename(beside(out, "old"))
    beside(out, "partial").rename(out)
    settle(out)


def beside(out: Path, what: str) -> Path:
    """The hidden path next to a folder, on the same disk."""
    return out.with_name(f".{out.name}.{what}")


def _place(out: Path, source: Path) -> Path:
    """The real path of `out`; InputError where a folder must not be put in its place."""
    try:
        folder = out.resolve()
    except (OSError, RuntimeError) as error:
        raise InputError(f"--out {out}: cannot be resolved ({error}); name another folder") from error
    if Path.cwd().is_relative_to(folder):
        raise InputError(
            f"--out {out}: is or holds the folder you are in, and scores replace a whole folder; name a new one, "
            "such as --out scores"
        )
    if source.resolve().is_relative_to(folder):
        raise InputError(f"--out {out}: holds the table itself, which would be replaced; name another folder")
    if os.path.ismount(folder):
        raise InputError(f"--out {out}: a disk is mounted there, which cannot be replaced; name a folder in it")
    return folder


def _inode(out: Path) -> int:
    """The inode of a folder; -1 where there is none."""
    return out.stat().st_ino if out.exists() else -1


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove these folders, innermost first, as far as they are empty."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def _files_of(out: Path) -> frozenset[str]:
    """The files that an evaluation wrote into `out`, as its about.json lists them; none in any other folder."""
    try:
        content = read_json(out / ABOUT, remedy="")
    except (InputError, OSError):
        return frozenset()
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        return frozenset()
    files = content.get("files")
    return frozenset(map(str, files)) if isinstance(files, list) else frozenset([ABOUT])
