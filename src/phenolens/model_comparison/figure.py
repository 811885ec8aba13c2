"""The scatter of all entries with pictures: how well they match, against how often a classifier finds the pictures."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from phenolens.plotting.style import QUIET, RULE, add_caption, figure_style, new_figure


def score_against_realism(scores: pd.DataFrame, facts: pd.DataFrame, *, headline: str, origin: str) -> Figure | None:
    """Accuracy of the first protocol (mean, headline) against the share of pictures told from cells; None without any.

    Args:
        scores: As `compute.compared` returns them.
        facts: As `compute.facts` returns them, with `realism`.
        headline: The whitening of the shown score.
        origin: Of the study's cells: real or simulated.
    """
    protocol = scores["protocol"].iloc[0]
    shown = scores[(scores["statistics"] == "mean") & (scores["whitening"] == headline)]
    shown = shown[shown["protocol"] == protocol].merge(facts[["entry", "realism"]], on="entry")
    shown = shown[shown["realism"].notna()]
    if shown.empty:
        return None
    percent = 100 * shown[["realism", "accuracy", "ci_low", "ci_high"]]
    below, above = percent["accuracy"] - percent["ci_low"], percent["ci_high"] - percent["accuracy"]
    with figure_style():
        figure = new_figure(5.5, 3.6, pad_in=0.05)
        axes = figure.add_subplot()
        axes.axvline(50, color=RULE, lw=1)
        axes.errorbar(
            percent["realism"], percent["accuracy"], yerr=np.stack([below, above]), fmt="o", ecolor=QUIET, lw=1
        )
        columns = shown["title"], percent["realism"], percent["accuracy"]
        labels = sorted(zip(*columns), key=lambda label: label[2])
        heights = np.linspace(0, 1, 2 * len(labels) + 1)[1::2]  # beside the axes, in the order of the scores
        for (title, x, y), height in zip(labels, heights):
            axes.annotate(
                title,
                (x, y),
                xytext=(1.06, height),
                textcoords="axes fraction",
                va="center",
                arrowprops={"arrowstyle": "-", "color": RULE, "lw": 0.7, "relpos": (0, 0.5)},
            )
        axes.set_xlabel(f"decoded or drawn cells told from {origin} ones, %")
        axes.set_ylabel(f"{protocol}, mean, {headline}, % right")
        caption = (
            "Each model that decodes or draws: its score, with the 95 % interval over compounds, against the share of "
            f"its reconstructed cells (samples where it does not reconstruct) and {origin} ones that a classifier "
            "calls correctly; at the line it guesses."
        )
        points = [f"{title} {y:.0f} % at {x:.0f} %" for title, x, y in zip(*columns)]
        return add_caption(figure, caption=caption, alt=f"{protocol} against realism: {', '.join(points)}.")
