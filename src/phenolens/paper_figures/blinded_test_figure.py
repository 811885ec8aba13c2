"""The assessment figure: how often synthetic cells passed as real, and real ones were called synthetic.

Lafarge et al. 2019, section 4.4.
"""

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from phenolens.blinded_test.compute import assessments, results
from phenolens.blinded_test.database import AssessmentFile
from phenolens.blinded_test.statistics import CYTOGAN_PASS_RATE, PAPER_PASS_RATE, AssessmentResults, flat
from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.paper_figures.config import FigureConfig
from phenolens.plotting.cell_images import WIDTH_IN
from phenolens.plotting.charts import ORANGE, SKY
from phenolens.plotting.style import INK, QUIET, RULE, add_caption, figure_style, new_figure
from phenolens.runs.catalogue import nearest_names
from phenolens.study import Study

ROW_IN = 0.27
PUBLISHED = {"VAE+, Lafarge 2019": PAPER_PASS_RATE, "CytoGAN, Goldsborough 2017": CYTOGAN_PASS_RATE}
SHARES = {"passed": "synthetic cells called real", "false_alarms": "real cells called synthetic"}


def assessment_figure(study: Study, config: FigureConfig) -> Figure:
    """How often synthetic cells passed as real in the study's blinded tests, and real ones were called synthetic."""
    known = assessments(study)
    if not known:
        raise InputError(f"{study.folder}: no blinded assessment yet; run `phenolens assess {study.quoted}` first")
    for name in config.assessments:
        if name not in known:
            raise InputError(f'no assessment "{name}"; {nearest_names(name, known)}')
    chosen = {name: known[name] for name in config.assessments or known}
    by_title = {f"{name} ({_shown(file)})": results(file) for name, file in chosen.items()}
    if not any(found.n_assessors for found in by_title.values()):
        raise InputError(
            f"{', '.join(chosen)}: nobody has answered yet; give assessors their codes: phenolens assess {study.quoted}"
        )
    return _drawn(by_title)


def _drawn(by_title: Mapping[str, AssessmentResults]) -> Figure:
    """Both shares with 95 % intervals: a row per assessor and one for all who finished; published shares are lines."""
    unanswered = [title for title, found in by_title.items() if not found.n_assessors]
    by_title = {title: found for title, found in by_title.items() if found.n_assessors}
    rows = pd.concat([_rows(title, found) for title, found in by_title.items()], ignore_index=True)
    with figure_style():
        figure = new_figure(WIDTH_IN, 1.35 + ROW_IN * len(rows), pad_in=0.06)
        both = figure.subplots(1, 2, sharey=True)
        for axes, (share, title), colour in zip(both, SHARES.items(), (SKY, ORANGE)):
            _points(axes, rows, share, colour)
            axes.set_title(title)
            axes.set_xlabel(f"% of {title.split(' called')[0]}")
        both[0].set_yticks(range(len(rows)), rows["label"].tolist(), fontsize=8.5)
        for label, kind in zip(both[0].get_yticklabels(), rows["kind"]):
            label.set_fontweight("bold" if kind != "assessor" else "normal")
        both[0].set_ylim(len(rows) - 0.4, -0.6)
        for (name, published), style in zip(PUBLISHED.items(), ((0, (5, 2)), (0, (1, 1.5)))):
            both[0].axvline(
                100 * published, color=INK, linewidth=1, linestyle=style, label=f"{name}: {100 * published:g} %"
            )
        figure.legend(loc="outside upper right", ncols=2, frameon=False, fontsize=8)
        n_finished = sum(found.n_finished for found in by_title.values())
        left_out = f" Left out, because nobody has answered: {', '.join(unanswered)}." if unanswered else ""
        pooled = "; ".join(f"{title}: {_in_text(found)}" for title, found in by_title.items())
        return add_caption(
            figure,
            caption=f"n = {counted(n_finished, 'finished assessor')}. Points with 95 % intervals: one assessor "
            "over the pictures (Wilson), all together over pictures and assessors. Hollow: not finished, in no pooled "
            "number. Where kinds cannot be distinguished, both shares add up to 100 %. Lines: published, "
            f"for other cells and assessors; their false-alarm rates are not known.{left_out}",
            alt=f"Blinded test. {pooled}",
        )


def _rows(title: str, found: AssessmentResults) -> pd.DataFrame:
    """The rows to draw: the title, its assessors, and all of them together; shares are 0 to 1."""
    drawn: list[dict[Hashable, object]] = [{"label": title, "kind": "title", "finished": True}]
    for row in found.assessors.to_dict("records"):
        left = "" if row["finished"] else f" ({row['n_answers']} of {found.n_images})"
        drawn.append(row | {"label": f"{row['assessor']}{left}", "kind": "assessor"})
    pooled = flat({share: getattr(found, share) for share in SHARES})
    label = f"all {found.n_finished} together" if found.n_finished else "nobody has finished"
    return pd.DataFrame([*drawn, pooled | {"label": label, "kind": "pooled", "finished": True}])


def _points(axes: Axes, rows: pd.DataFrame, share: str, colour: str) -> None:
    style: dict[str, Any] = {"fontsize": 8, "color": QUIET}
    for place, row in enumerate(rows.to_dict("records")):
        if row["kind"] == "title":
            axes.axhline(place, color=RULE, linewidth=0.8, zorder=0)
            continue
        marker, size, width = ("D", 6, 2) if row["kind"] == "pooled" else ("o", 4.5, 1)
        value, low, high = (100 * row[f"{share}{end}"] for end in ("", "_low", "_high"))
        face = colour if row["finished"] else "white"
        axes.plot([low, high], [place] * 2, color=colour, linewidth=width)
        axes.plot([value], [place], marker=marker, markersize=size, color=colour, markerfacecolor=face)
        if not pd.isna(value):
            axes.annotate(f"{value:.0f}", (high, place), (4, 0), textcoords="offset points", va="center", **style)
    axes.set_xlim(0, 105)
    axes.tick_params(axis="y", length=0)


def _in_text(found: AssessmentResults) -> str:
    """`synthetic cells called real 41 % (31 to 52), real cells called synthetic 35 % (25 to 46)`."""
    if found.passed is None or found.false_alarms is None:
        return f"none of {found.n_assessors} has finished"
    return ", ".join(
        f"{title} {100 * interval.value:.0f} % ({100 * interval.low:.0f} to {100 * interval.high:.0f})"
        for title, interval in zip(SHARES.values(), (found.passed, found.false_alarms))
    )


def _shown(file: AssessmentFile) -> str:
    """`VAE+`, or `VAE+, channels alone too`: published shares are of pictures with all channels together."""
    about = file.about()
    return f"{about['title']}{', channels alone too' if about['each_channel'] else ''}"
