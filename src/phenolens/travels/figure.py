"""A trajectory as one figure: decoded frames, their measures, the nearest real cells, difference maps.

F frames, C channels, S crop side in px.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from phenolens.core.colours import Contrast, cell_image, channel_label, checked_crops, colour_names, shared_contrast
from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.core.number_text import change_text
from phenolens.morphology.features import describe, short_name
from phenolens.plotting.cell_images import (
    PAD_IN,
    SPACE,
    channel_key,
    contact_sheet,
    listed,
    wrapped,
)
from phenolens.plotting.page import text_lines
from phenolens.plotting.style import INK, QUIET, add_caption, bare, figure_style, new_figure
from phenolens.screens.screen import dose_label
from phenolens.travels.trajectory import Trajectory

TEMPLATES = Path(__file__).parent / "templates"
STRIP_WIDTH_IN = 7.0
NAME_IN = 0.13  # height of a line of a row's name, which is above the row: a phone shows pictures first
NUMBERS_IN, ROW_GAP_IN = 0.17, 0.06  # heights of a row of numbers, and of what is left free above its name
NAME_CHARACTERS = 56  # of a row's name in a line: half of the width, which is what a phone shows at once
DIVERGING = "PuOr_r"  # purple darker, orange brighter: distinguishable without red or green vision
LEAST_RANGE = 0.1  # of a difference map, so that noise does not get full colour
FLAG = "\u26a0"  # a warning sign, in the font that comes with matplotlib
INTERPOLATIONS = {
    "swap": "the features that differ most are copied from the target first",
    "line": "all features at once, in a straight line",
    "direction": "along the mean of the treated cells minus the mean of the control cells of their plates",
}


class _Sheet:
    """One pair of axes, in inches from the top left corner, for all pictures and texts.

    Laying out a hundred axes would take a quarter of a minute.
    """

    def __init__(self, n_frames: int) -> None:
        self.side = STRIP_WIDTH_IN / (n_frames + 2 + 2 * SPACE)
        first = self.side * (1 + SPACE)
        self.frames_x = [first + self.side * i for i in range(n_frames)]  # left edges
        self.start_x, self.target_x = 0.0, STRIP_WIDTH_IN - self.side
        self.figure = new_figure(STRIP_WIDTH_IN, STRIP_WIDTH_IN, pad_in=PAD_IN)
        self.axes = bare(self.figure.add_subplot())
        self.y = 0.0  # top of the next row

    def picture(self, x: float, rgb: np.ndarray, *, width: float | None = None, flagged: bool = False) -> None:
        """A picture as high as a crop, and as wide unless a width is given.

        Where flagged it has a dashed border and a sign, readable without colour.
        """
        left, top, bottom = x + PAD_IN, self.y + PAD_IN, self.y + self.side - PAD_IN
        right = left + (width or self.side - 2 * PAD_IN)
        self.axes.imshow(rgb, extent=(left, right, bottom, top), interpolation="nearest", aspect="auto")
        if flagged:
            border = Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=INK, linewidth=1.6)
            border.set_linestyle((0, (3, 2)))
            self.axes.add_patch(border)
            box: dict[str, Any] = {"boxstyle": "round,pad=0.12", "facecolor": "white", "edgecolor": "none"}
            self.axes.text(right - 0.03, top + 0.03, FLAG, ha="right", va="top", fontsize=7, bbox=box)

    def name(self, name: str) -> None:
        """A row's name, above its pictures or numbers."""
        lines = wrapped(name, NAME_CHARACTERS)
        style: dict[str, Any] = {"ha": "left", "va": "top", "fontsize": 7.8, "color": QUIET, "linespacing": 1.2}
        self.axes.text(self.start_x + PAD_IN, self.y, lines, **style)
        self.y += NAME_IN * (lines.count("\n") + 1) + 0.02

    def cropped(self) -> Figure:
        """The figure, as high as what is on it."""
        self.figure.set_size_inches(STRIP_WIDTH_IN, self.y + 0.3)
        self.axes.set(xlim=(0, STRIP_WIDTH_IN), ylim=(self.y, 0))
        return self.figure


def travel_strip(
    trajectory: Trajectory, *, n_measures: int = 4, contrast: Contrast | None = None, said: Collection[str] = ()
) -> Figure:
    """Draw a trajectory: the real start, the decoded frames and the real target, with numbers and nearest real cells.

    Under each frame: similarity of its picture to the target, the `n_measures` measures that change most in real
    cells, and the out-of-distribution scores; a frame beyond a limit has a dashed border and a sign.

    Args:
        trajectory: One that `tl.travel` returns.
        n_measures: Rows of measures, 0 or more.
        contrast: Of all pictures; default: that of the real cells.
        said: Sentences that the caption leaves out, because the page says them, as `shared_sentences`.

    Returns:
        The figure.

    Raises:
        InputError: The trajectory has not as many rows of numbers and nearest cells as pictures.
    """
    channels = trajectory.channels
    pictures = checked_crops(trajectory.pictures, channels, what="frames")
    real = np.stack([trajectory.start.crop, trajectory.target.crop, *(cell.crop for cell in trajectory.nearest)])
    contrast = contrast or shared_contrast(real, channels)
    if len(trajectory.frames) != len(pictures) or len(trajectory.nearest) != len(pictures):
        raise InputError(f"{len(pictures)} pictures, {len(trajectory.frames)} rows: expected one row per frame")
    with figure_style():
        sheet = _Sheet(len(pictures))
        _put_frames(sheet, trajectory, contrast)
        for name, values in _number_rows(trajectory, n_measures):
            _put_numbers(sheet, name, values)
        _put_nearest(sheet, trajectory, contrast)
        _put_differences(sheet, trajectory)
        figure = sheet.cropped()
        channel_key(figure, contrast)
        alt = f"{counted(len(pictures), 'decoded frame')}, {summary(trajectory)}. {colour_names(contrast)}"
        own = [sentence for sentence in caption_sentences(trajectory) if sentence not in said]
        return add_caption(figure, caption=" ".join(own), alt=alt)


def _number_rows(trajectory: Trajectory, n_measures: int) -> list[tuple[str, list[str]]]:
    """The name of each row of numbers, and one text per column: start, frames, target."""
    frames = trajectory.frames
    rows = []
    if frames["cosine_decoded"].notna().any():
        *cosines, treated = _texts([*frames["cosine_decoded"], frames["cosine_treated"].iloc[0]], "{:.2f}")
        name = "similarity to the target (cosine; 1: the same)\nright: median of other treated cells"
        rows.append((name, ["", *cosines, treated]))
    if len(trajectory.stops) > 1:
        doses = [dose_label(float(str(name).rpartition("@")[2])) for name in frames["towards"]]
        rows.insert(0, ("towards the dose", ["", *doses, ""]))
    if trajectory.measured is not None:
        for name in trajectory.shown_measures(n_measures):
            start, target = _texts(trajectory.measured.ends[name], in_three_digits)
            values = [start, *_texts(trajectory.measured.frames[name], in_three_digits), target]
            rows.append((f"{describe(name)}\n{_changes(trajectory, name)}", values))
    for name, column in (
        (f"distance to {trajectory.origin} cells", "far"),
        ("distance between the embedding and that of its picture", "moved"),
    ):
        if frames[column].isna().all():
            continue
        texts = _texts(frames[column], "{:.2f}")
        beyond = [">1.00" if text == "1.00" else text for text in texts]
        marked = [f"{over} {FLAG}" if v > 1 else text for over, text, v in zip(beyond, texts, frames[column])]
        rows.append((f"{name}\n99 % of {trajectory.origin} cells are below 1", ["", *marked, ""]))
    return rows


def _changes(trajectory: Trajectory, name: str) -> str:
    """`change +1.0 s.d. of control cells, moved cells +0.9, real cells +1.2`."""
    assert trajectory.measured is not None
    this = change_text(trajectory.measured.change[name].iloc[-1])
    if trajectory.change is None:
        return f"change {this} s.d."
    moved, real = map(change_text, trajectory.change.table.loc[name, ["decoded", "real"]])
    return f"change {this} s.d., moved cells {moved}, {trajectory.origin} cells {real}"


def _put_frames(sheet: _Sheet, trajectory: Trajectory, contrast: Contrast) -> None:
    title: dict[str, Any] = {"va": "bottom", "fontsize": 9, "fontweight": "bold"}
    sheet.axes.text(sheet.start_x, 0.18, f"{trajectory.start.label}, {trajectory.origin}", ha="left", **title)
    sheet.axes.text(STRIP_WIDTH_IN, 0.18, f"{destination(trajectory)}, {trajectory.origin}", ha="right", **title)
    sheet.y = 0.22
    sheet.name(f"frames decoded by {trajectory.model}")
    sheet.picture(sheet.start_x, cell_image(trajectory.start.crop, contrast))
    for x, picture, flag in zip(sheet.frames_x, trajectory.pictures, trajectory.frames["flag"]):
        sheet.picture(x, cell_image(picture, contrast), flagged=bool(flag))
    sheet.picture(sheet.target_x, cell_image(trajectory.target.crop, contrast))
    sheet.y += sheet.side + 0.05
    for place, channel in enumerate(contrast.channels if contrast.has_hidden else ()):
        alone = contrast.of_channels(place)
        sheet.name(f"{channel} alone")
        crops = (trajectory.start.crop, *trajectory.pictures, trajectory.target.crop)
        for x, crop in zip((sheet.start_x, *sheet.frames_x, sheet.target_x), crops):
            sheet.picture(x, cell_image(crop[place : place + 1], alone))
        sheet.y += sheet.side


def _put_numbers(sheet: _Sheet, name: str, values: Sequence[str]) -> None:
    sheet.y += ROW_GAP_IN
    sheet.name(name)
    for x, value in zip([sheet.start_x, *sheet.frames_x, sheet.target_x], values):
        real = x in (sheet.start_x, sheet.target_x)
        weight = "bold" if FLAG in value else "normal"
        style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8.6, "color": QUIET if real else INK}
        sheet.axes.text(x + sheet.side / 2, sheet.y + NUMBERS_IN / 2, value, fontweight=weight, **style)
    sheet.y += NUMBERS_IN


def _put_nearest(sheet: _Sheet, trajectory: Trajectory, contrast: Contrast) -> None:
    sheet.y += 0.08
    sheet.name(f"nearest {trajectory.origin} cell, and its treatment")
    labels = [_short(cell.label, sheet.side) for cell in trajectory.nearest]
    for x, cell, label in zip(sheet.frames_x, trajectory.nearest, labels):
        sheet.picture(x, cell_image(cell.crop, contrast))
        style: dict[str, Any] = {"ha": "center", "va": "top", "fontsize": 6.9, "color": QUIET, "linespacing": 1.05}
        sheet.axes.text(x + sheet.side / 2, sheet.y + sheet.side + 0.02, label, **style)
    sheet.y += sheet.side + 0.12 * max(label.count("\n") + 1 for label in labels) + 0.1


def _put_differences(sheet: _Sheet, trajectory: Trajectory) -> None:
    """A map per channel, as many as fit, and their colour scale."""
    difference = trajectory.difference
    limit = max(float(np.percentile(np.abs(difference), 99.5)), LEAST_RANGE)
    colours = matplotlib.colormaps[DIVERGING]
    columns = [*sheet.frames_x, sheet.target_x]
    n_shown = min(len(difference), len(columns) - 2)
    sheet.name("last frame minus the first, a map per channel")
    sheet.y += 0.14
    for x, name, channel in zip(columns[:n_shown], trajectory.channels, difference):
        sheet.axes.text(x + sheet.side / 2, sheet.y - 0.02, channel_label(name), ha="center", va="bottom", fontsize=8)
        sheet.picture(x, colours((channel / limit + 1) / 2)[..., :3])
    scale = columns[n_shown] + 0.1
    sheet.picture(scale - PAD_IN, colours(np.linspace(1, 0, 64))[:, None, :3], width=0.09)
    for share, label in ((0.0, f"+{limit:.2f} brighter"), (0.5, "0 the same"), (1.0, f"−{limit:.2f} darker")):
        sheet.axes.text(scale + 0.13, sheet.y + 0.05 + share * (sheet.side - 0.1), label, va="center", fontsize=7.8)
    sheet.y += sheet.side + 0.05


def destination(trajectory: Trajectory) -> str:
    """`taxol 0.3 µM`, and which population of it where there are several."""
    population = trajectory.population
    if population.of == 1:
        return trajectory.stops[-1]
    share = percent(population.share)
    return f"{trajectory.stops[-1]}, population {population.number} of {population.of} ({share} of cells)"


def shared_sentences(trajectories: Sequence[Trajectory]) -> list[str]:
    """What the captions of several strips all say; of a single strip nothing."""
    first, *others = [caption_sentences(trajectory) for trajectory in trajectories]
    return [sentence for sentence in first if others and all(sentence in of_other for of_other in others)]


def caption_sentences(trajectory: Trajectory) -> list[str]:
    """The caption of a trajectory's strip, sentence by sentence."""
    return text_lines(
        TEMPLATES,
        "strip.txt",
        trajectory=trajectory,
        destination=destination(trajectory),
        frames=counted(len(trajectory.frames), "frame"),
        cells=counted(trajectory.population.n_cells, "cell"),
        interpolation=INTERPOLATIONS[trajectory.way],
        changes=[] if trajectory.change is None else trajectory.change.brief(origin=trajectory.origin),
        flag=FLAG,
    )


def summary(trajectory: Trajectory) -> str:
    """A trajectory in a line: how near it comes, what changes most, how many frames are out of distribution."""
    frames, start, target = trajectory.frames, trajectory.start, trajectory.target
    parts = [
        f"{start.label} ({start.cell_id}) to {trajectory.stops[-1]} ({target.cell_id})",
        *filter(None, [trajectory.nearness(-1)]),
        f"{trajectory.n_flagged} of {counted(len(frames), 'frame')} out of distribution",
    ]
    if trajectory.population.of > 1:
        parts.insert(0, population_label(trajectory).replace("\n", ", "))
    if trajectory.measured is not None:
        change, names = trajectory.measured.change.iloc[-1], trajectory.shown_measures(3)
        moved = [f"{short_name(name)} {change_text(change[name])} s.d." for name in names]
        parts += [f"change of this cell: {', '.join(moved)}"] if moved else []
    changes = [] if trajectory.change is None else trajectory.change.sentences(origin=trajectory.origin)
    parts += [sentence[0].lower() + sentence[1:] for sentence in changes]
    if trajectory.batch_share is not None:
        parts.append(trajectory.batch_share.sentence())
    return "; ".join(parts)


def _short(label: str, side_in: float) -> str:
    """A label wrapped to the width of a crop, at most four lines; a hyphen may end a line."""
    lines = wrapped(label.replace("-", "- ").replace(" µM", "\u00a0µM"), int(side_in * 18)).replace("- ", "-")
    return "\n".join(lines.split("\n")[:4])


def _texts(values: Iterable[float], written: str | Callable[[float], str]) -> list[str]:
    form = written.format if isinstance(written, str) else written
    return ["–" if not np.isfinite(value) else form(value).replace("-", "−") for value in map(float, values)]


def percent(share: float) -> str:
    """`15 %`."""
    return f"{100 * share:.0f} %"


def in_three_digits(value: float) -> str:
    """A number in three digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def populations(trajectories: Sequence[Trajectory], *, contrast: Contrast | None = None) -> Figure:
    """Draw a treatment's populations, a row each: the medoid, then random cells of it. All cells are real.

    Args:
        trajectories: One to each population, from `Traveller.travel`.
        contrast: Of all pictures; left out: that of the cells.

    Returns:
        The figure.

    Raises:
        InputError: trajectories without populations.
    """
    if not trajectories or any(not trajectory.population.cells for trajectory in trajectories):
        raise InputError("no populations to show: ask for --targets medoids")
    cells = [
        np.stack([t.target.crop, *(cell.crop for cell in t.population.cells if cell.cell_id != t.target.cell_id)])
        for t in trajectories
    ]
    first, shares = trajectories[0], listed([percent(trajectory.population.share) for trajectory in trajectories])
    return contact_sheet(
        cells,
        [population_label(trajectory) for trajectory in trajectories],
        channels=first.channels,
        contrast=contrast,
        characters=40,
        what=f"n = {counted(first.population.n_cells, 'cell')} of {first.stops[-1]} in "
        f"{counted(len(cells), 'population')} ({shares}); the "
        f"medoid (left) and random cells of its population, all {first.origin}. Labels: means of the measures that "
        "differ most from the other cells",
    )


def population_label(trajectory: Trajectory) -> str:
    """`population 2 of 3, 28 % of 39 cells`, and a line for each of its marks: `nucleus area 410, others 702`."""
    population = trajectory.population
    cells = counted(population.n_cells, "cell")
    name = f"population {population.number} of {population.of}, {percent(population.share)} of {cells}"
    marks = [
        f"{short_name(measure)} {in_three_digits(ours)}, others {in_three_digits(others)}"
        for measure, ours, others in population.marks
    ]
    return "\n".join([name, *marks])
