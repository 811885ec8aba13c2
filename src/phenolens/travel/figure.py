"""A trajectory as one figure: decoded frames, their measures, the nearest real cells, difference maps.

F frames, C channels, S crop side in px.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from phenolens.core.colours import Contrast, cell_image, checked_crops, colour_names, shared_contrast
from phenolens.core.errors import InputError
from phenolens.morphology.features import describe
from phenolens.plotting.cell_images import (
    PAD_IN,
    SPACE,
    cell_grid,
    channel_key,
    contrast_words,
    draw_cell,
    label_row,
    listed,
    wrapped,
)
from phenolens.plotting.style import INK, QUIET, add_caption, bare, figure_style, new_figure
from phenolens.screens.screen import dose_label
from phenolens.travel.trajectory import Trajectory

STRIP_WIDTH_IN = 10.5
LABEL_IN = 1.95  # left of the pictures, for row names
LINE_IN, ROW_PAD_IN = 0.115, 0.08  # of a row of numbers: a line of its name, and its padding
LABEL_CHARACTERS = 36  # of a row's name in a line
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
        self.side = (STRIP_WIDTH_IN - LABEL_IN) / (n_frames + 2 + 2 * SPACE)
        first = LABEL_IN + self.side * (1 + SPACE)
        self.frames_x = [first + self.side * i for i in range(n_frames)]  # left edges
        self.start_x, self.target_x = LABEL_IN, STRIP_WIDTH_IN - self.side
        self.drawn: list[Callable[[Axes], object]] = []
        self.y = 0.0  # top of the next row

    def picture(self, x: float, rgb: np.ndarray, *, flagged: bool = False) -> None:
        """A picture of one crop's size; where flagged with a dashed border and a sign, readable without colour."""
        left, right, top, bottom = x + PAD_IN, x + self.side - PAD_IN, self.y + PAD_IN, self.y + self.side - PAD_IN
        extent = (left, right, bottom, top)
        self.drawn.append(lambda axes: axes.imshow(rgb, extent=extent, interpolation="nearest", aspect="auto"))
        if flagged:
            border = Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=INK, linewidth=1.6)
            border.set_linestyle((0, (3, 2)))
            self.drawn.append(lambda axes: axes.add_patch(border))
            box: dict[str, Any] = {"boxstyle": "round,pad=0.12", "facecolor": "white", "edgecolor": "none"}
            self.text(right - 0.03, top + 0.03, FLAG, ha="right", va="top", fontsize=7, bbox=box)

    def block(self, x: float, y: float, width: float, height: float, colour: tuple[float, ...]) -> None:
        """A block of one colour."""
        self.drawn.append(lambda axes: axes.add_patch(Rectangle((x, y), width, height, facecolor=colour)))

    def text(self, x: float, y: float, text: str, **style: Any) -> None:
        """A text at a place."""
        self.drawn.append(lambda axes: axes.text(x, y, text, **style))

    def name(self, name: str, *, middle: float, colour: str = INK) -> None:
        """A row's name, to the left of its pictures or numbers."""
        style: dict[str, Any] = {"ha": "right", "va": "center", "fontsize": 6.8, "color": colour, "linespacing": 1.05}
        self.text(LABEL_IN - 0.08, middle, wrapped(name, LABEL_CHARACTERS), **style)

    def figure(self) -> Figure:
        """The sheet as a figure."""
        figure = new_figure(STRIP_WIDTH_IN, self.y + 0.3, pad_in=PAD_IN)
        axes = bare(figure.add_subplot())
        for put in self.drawn:
            put(axes)
        axes.set(xlim=(0, STRIP_WIDTH_IN), ylim=(self.y, 0))
        return figure


def travel_strip(trajectory: Trajectory, *, n_measures: int = 4, contrast: Contrast | None = None) -> Figure:
    """Draw a trajectory: the real start, the decoded frames and the real target, with numbers and nearest real cells.

    Under each frame: cosine and distance to the target, the `n_measures` measures that change most, and the
    out-of-distribution scores; a frame beyond a limit has a dashed border and a sign.

    Args:
        trajectory: From `Traveller.travel`.
        n_measures: Rows of measures.
        contrast: Of all pictures; left out: that of the real cells.

    Returns:
        The figure.
    """
    channels = trajectory.channels
    pictures = checked_crops(trajectory.pictures, channels, what="frames")
    real = np.stack([trajectory.start.crop, trajectory.target.crop, *(cell.crop for cell in trajectory.nearest)])
    contrast = contrast or shared_contrast(real, channels)
    if len(trajectory.frames) != len(pictures) or len(trajectory.nearest) != len(pictures):
        raise InputError(f"{len(pictures)} pictures, {len(trajectory.frames)} rows: expected one row a frame")
    with figure_style():
        sheet = _Sheet(len(pictures))
        _put_frames(sheet, trajectory, contrast)
        for name, values in _number_rows(trajectory, n_measures):
            _put_numbers(sheet, name, values)
        _put_nearest(sheet, trajectory, contrast)
        _put_differences(sheet, trajectory)
        figure = sheet.figure()
        channel_key(figure, contrast)
        return add_caption(figure, caption=_caption(trajectory, contrast), alt=_alt(trajectory))


def _number_rows(trajectory: Trajectory, n_measures: int) -> list[tuple[str, list[str]]]:
    """The name of each row of numbers, and one text a column: start, frames, target."""
    frames = trajectory.frames
    rows = [
        ("cosine to the target", ["", *_texts(frames["cosine"], "{:.2f}"), ""]),
        ("distance to the target", ["", *_texts(frames["distance"], "{:.1f}"), ""]),
    ]
    if len(trajectory.stops) > 1:
        doses = [dose_label(float(str(name).rpartition("@")[2])) for name in frames["towards"]]
        rows.insert(0, ("towards the dose", ["", *doses, ""]))
    if trajectory.measured is not None:
        for name in trajectory.measured.most_moved(n_measures):
            start, target = _texts(trajectory.measured.ends[name], in_three_digits)
            values = [start, *_texts(trajectory.measured.frames[name], in_three_digits), target]
            (sds,) = _texts([trajectory.measured.change[name].iloc[-1]], "{:+.1f}")
            rows.append((f"{describe(name)}; last minus first: {sds} s.d. of control cells", values))
    for name, column in (("distance to real cells (limit 1)", "far"), ("moves when embedded again (limit 1)", "moved")):
        texts = _texts(frames[column], "{:.2f}")
        beyond = [">1.00" if text == "1.00" else text for text in texts]
        marked = [f"{over} {FLAG}" if v > 1 else text for over, text, v in zip(beyond, texts, frames[column])]
        rows.append((name, ["", *marked, ""]))
    return rows


def _put_frames(sheet: _Sheet, trajectory: Trajectory, contrast: Contrast) -> None:
    title: dict[str, Any] = {"va": "bottom", "fontsize": 9, "fontweight": "bold"}
    sheet.text(sheet.start_x, 0.18, f"{trajectory.start.label}, real", ha="left", **title)
    sheet.text(STRIP_WIDTH_IN, 0.18, f"{destination(trajectory)}, real", ha="right", **title)
    sheet.y = 0.22
    sheet.picture(sheet.start_x, cell_image(trajectory.start.crop, contrast))
    for x, picture, flag in zip(sheet.frames_x, trajectory.pictures, trajectory.frames["flag"]):
        sheet.picture(x, cell_image(picture, contrast), flagged=bool(flag))
    sheet.picture(sheet.target_x, cell_image(trajectory.target.crop, contrast))
    sheet.name(f"decoded by {trajectory.model}, between two real cells", middle=sheet.y + sheet.side / 2)
    sheet.y += sheet.side + 0.05


def _put_numbers(sheet: _Sheet, name: str, values: Sequence[str]) -> None:
    height = LINE_IN * (wrapped(name, LABEL_CHARACTERS).count("\n") + 1) + ROW_PAD_IN
    middle = sheet.y + height / 2
    sheet.name(name, middle=middle)
    for x, value in zip([sheet.start_x, *sheet.frames_x, sheet.target_x], values):
        real = x in (sheet.start_x, sheet.target_x)
        weight = "bold" if FLAG in value else "normal"
        style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7.8, "color": QUIET if real else INK}
        sheet.text(x + sheet.side / 2, middle, value, fontweight=weight, **style)
    sheet.y += height


def _put_nearest(sheet: _Sheet, trajectory: Trajectory, contrast: Contrast) -> None:
    sheet.y += 0.08
    sheet.name("the real cell nearest to each frame, and its treatment", middle=sheet.y + sheet.side / 2)
    labels = [_short(cell.label, sheet.side) for cell in trajectory.nearest]
    for x, cell, label in zip(sheet.frames_x, trajectory.nearest, labels):
        sheet.picture(x, cell_image(cell.crop, contrast))
        style: dict[str, Any] = {"ha": "center", "va": "top", "fontsize": 5.8, "color": QUIET, "linespacing": 1.05}
        sheet.text(x + sheet.side / 2, sheet.y + sheet.side + 0.02, label, **style)
    sheet.y += sheet.side + 0.1 * max(label.count("\n") + 1 for label in labels) + 0.1


def _put_differences(sheet: _Sheet, trajectory: Trajectory) -> None:
    """A map a channel, as many as fit, and their colour scale."""
    difference = trajectory.difference
    limit = max(float(np.percentile(np.abs(difference), 99.5)), LEAST_RANGE)
    colours = matplotlib.colormaps[DIVERGING]
    columns = [*sheet.frames_x, sheet.target_x]
    n_shown = min(len(difference), len(columns) - 2)
    sheet.y += 0.14
    sheet.name("last frame minus the first, a map a channel", middle=sheet.y + sheet.side / 2)
    for x, name, channel in zip(columns[:n_shown], trajectory.channels, difference):
        sheet.text(x + sheet.side / 2, sheet.y - 0.02, name, ha="center", va="bottom", fontsize=7.2)
        sheet.picture(x, colours((channel / limit + 1) / 2)[..., :3])
    scale = columns[n_shown] + 0.1
    step = (sheet.side - 2 * PAD_IN) / 64
    for i in range(64):
        sheet.block(scale, sheet.y + PAD_IN + i * step, 0.09, step * 1.05, colours(1 - i / 63))
    for share, label in ((0.0, f"+{limit:.2f} brighter"), (0.5, "0 the same"), (1.0, f"−{limit:.2f} darker")):
        sheet.text(scale + 0.13, sheet.y + 0.05 + share * (sheet.side - 0.1), label, va="center", fontsize=6.8)
    sheet.y += sheet.side + 0.05


def destination(trajectory: Trajectory) -> str:
    """`taxol 0.3 µM`, and which population of it where there are several."""
    population = trajectory.population
    if population.of == 1:
        return trajectory.stops[-1]
    share = percent(population.share)
    return f"{trajectory.stops[-1]}, population {population.number} of {population.of} ({share} of cells)"


def _interpolation(trajectory: Trajectory) -> str:
    times = "" if trajectory.beyond == 1 else f", to {trajectory.beyond:g} times its length; the target is at 1"
    return INTERPOLATIONS[trajectory.way] + times


def _caption(trajectory: Trajectory, contrast: Contrast) -> str:
    population, frames = trajectory.population, trajectory.frames
    n_flagged = int((frames["flag"] != "").sum())
    through = f" through {', '.join(trajectory.stops[:-1])}" if len(trajectory.stops) > 1 else ""
    represented = "all" if population.of == 1 else percent(population.share)
    sentences = [
        f"n = 1 real cell of {trajectory.start.label}, interpolated towards {destination(trajectory)}{through}, "
        f"{len(frames)} frames decoded by {trajectory.model} ({_interpolation(trajectory)}); the target represents "
        f"{represented} of {population.n_cells} cells.",
        "Nothing between the ends was imaged.",
        "Numbers under real cells are measured on them; a decoded picture is smoother than a real cell, so compare its "
        "numbers with those of the first frame."
        if trajectory.measured is not None
        else "",
        f"{not_followed(trajectory)}." if not_followed(trajectory) else "",
        f"{n_flagged} of {len(frames)} frames are out of distribution ({FLAG}): beyond 99 % of real cells."
        if n_flagged
        else "No frame is out of distribution: all are within 99 % of real cells.",
        f"{trajectory.batch_share.sentence()}." if trajectory.batch_share is not None else "",
        f"{colour_names(contrast)}; one contrast for all; each channel of a real cell divided by its maximum.",
    ]
    return " ".join(filter(None, sentences))


def not_followed(trajectory: Trajectory, n: int = 3) -> str:
    """Measures that change between the real cells but hardly between frames, as a sentence without a full stop.

    Empty where there are none, and for a direction, where the real target is only a cell near the end.
    """
    if trajectory.measured is None or trajectory.way == "direction":
        return ""
    real, decoded = trajectory.measured.real_change, trajectory.measured.change.iloc[-1]
    changes = [
        "{} (real {} s.d., decoded {})".format(
            describe(name).split(",")[0], *_texts([real[name], decoded[name]], "{:+.1f}")
        )
        for name in trajectory.measured.not_drawn(n)
    ]
    return f"The frames do not follow the real cells in: {', '.join(changes)}" if changes else ""


def _alt(trajectory: Trajectory) -> str:
    frames = trajectory.frames
    parts = [
        f"{len(frames)} frames decoded between a real cell of {trajectory.start.label} and one of "
        f"{destination(trajectory)}, cosine to the target from {frames['cosine'].iloc[0]:.2f} to "
        f"{frames['cosine'].iloc[-1]:.2f}"
    ]
    if trajectory.measured is not None:
        for name in trajectory.measured.most_moved(2):
            first, last = (in_three_digits(trajectory.measured.frames[name].iloc[at]) for at in (0, -1))
            parts.append(f"{describe(name)}: from {first} to {last}")
    parts.append(f"{int((frames['flag'] != '').sum())} frames out of distribution")
    return "; ".join(parts)


def _short(label: str, side_in: float) -> str:
    """A label wrapped to the width of a crop, at most four lines; a hyphen may end a line."""
    lines = wrapped(label.replace("-", "- ").replace(" µM", "\u00a0µM"), int(side_in * 21)).replace("- ", "-")
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


POPULATION_LABEL_IN, SIDE_IN = 3.3, 0.95
POPULATION_LABEL_CHARACTERS = 40


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
    channels = trajectories[0].channels
    rows = [
        [t.target.crop, *(cell.crop for cell in t.population.cells if cell.cell_id != t.target.cell_id)]
        for t in trajectories
    ]
    every = np.concatenate([np.stack(row) for row in rows])
    contrast = contrast or shared_contrast(every, channels)
    n_columns = max(map(len, rows))
    n_cells = trajectories[0].population.n_cells
    with figure_style():
        height = 0.4 + (SIDE_IN + 2 * PAD_IN) * len(rows)
        figure = new_figure(POPULATION_LABEL_IN + SIDE_IN * (n_columns + SPACE), height, pad_in=PAD_IN)
        grid = cell_grid(figure, len(rows), n_columns + 1, width_ratios=[1.0, SPACE, *[1.0] * (n_columns - 1)])
        for axes_row, row, trajectory in zip(grid, rows, trajectories):
            for axes in axes_row:
                axes.set_axis_off()
            for axes, crop in zip([axes_row[0], *axes_row[2:]], row):
                axes.set_axis_on()
                draw_cell(axes, crop, contrast)
            label_row(axes_row[0], population_label(trajectory), characters=POPULATION_LABEL_CHARACTERS, size=6.8)
        channel_key(figure, contrast)
        shares = listed([percent(trajectory.population.share) for trajectory in trajectories])
        return add_caption(
            figure,
            caption=f"n = {n_cells} cells of {trajectories[0].stops[-1]} in {len(rows)} populations ({shares}); "
            "the medoid (left) and random cells of its population, all real. Labels: means of the measures that "
            f"differ most from the other cells. {contrast_words(contrast, every)}",
            alt=f"{len(trajectories)} populations of {trajectories[0].stops[-1]}: "
            + "; ".join(population_label(trajectory).replace("\n", ", ") for trajectory in trajectories),
        )


def population_label(trajectory: Trajectory) -> str:
    """`population 2 of 3, 28 % of 39 cells`, and a line for each of its marks: `nucleus area 410, others 702`."""
    population = trajectory.population
    name = (
        f"population {population.number} of {population.of}, {percent(population.share)} of {population.n_cells} cells"
    )
    marks = [
        f"{describe(measure).split(',')[0]} {in_three_digits(ours)}, others {in_three_digits(others)}"
        for measure, ours, others in population.marks
    ]
    return "\n".join([name, *marks])
