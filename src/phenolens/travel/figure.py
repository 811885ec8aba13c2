"""A journey as one picture: the cell on its way, what was measured on it, the real cells near it, what differs.

F frames, C channels, S crop side in px.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from phenolens.core.colours import Contrast, cell_image, checked_crops, colour_words, shared_contrast
from phenolens.core.errors import InputError
from phenolens.morphology.features import describe as words_of
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
from phenolens.travel.journey import Journey

STRIP_WIDTH_IN = 10.5
LABEL_IN = 1.95  # left of the pictures, for what the numbers are
LINE_IN, ROW_PAD_IN = 0.115, 0.08  # of a row of numbers: a line of its name, and what stands around it
LABEL_CHARACTERS = 36  # of a row's name in a line
DIVERGING = "PuOr_r"  # purple darker, orange brighter: told apart by people who see no red or no green
LEAST_RANGE = 0.1  # of a difference map, so that noise is not stretched to full colour
FLAG = "\u26a0"  # a warning sign, in the font that comes with matplotlib
WAYS = {
    "swap": "the features that differ most are copied from the target first",
    "line": "all features at once, in a straight line",
    "direction": "along the mean of the treated cells less the mean of the control cells of their plates",
}


class _Sheet:
    """One pair of axes in inches from the top left corner, on which pictures and words are put where they belong.

    A hundred axes of their own would take a quarter of a minute to lay out.
    """

    def __init__(self, n_frames: int) -> None:
        self.side = (STRIP_WIDTH_IN - LABEL_IN) / (n_frames + 2 + 2 * SPACE)
        first = LABEL_IN + self.side * (1 + SPACE)
        self.frames_x = [first + self.side * i for i in range(n_frames)]  # left edges
        self.start_x, self.target_x = LABEL_IN, STRIP_WIDTH_IN - self.side
        self.drawn: list[Callable[[Axes], object]] = []
        self.y = 0.0  # where the next row begins

    def picture(self, x: float, rgb: np.ndarray, *, flagged: bool = False) -> None:
        """A picture of one crop's size; where flagged with a dashed border and a sign, told without colour."""
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

    def text(self, x: float, y: float, words: str, **style: Any) -> None:
        """Words at a place."""
        self.drawn.append(lambda axes: axes.text(x, y, words, **style))

    def name(self, words: str, *, middle: float, colour: str = INK) -> None:
        """A row's name, to the left of its pictures or numbers."""
        style: dict[str, Any] = {"ha": "right", "va": "center", "fontsize": 6.8, "color": colour, "linespacing": 1.05}
        self.text(LABEL_IN - 0.08, middle, wrapped(words, LABEL_CHARACTERS), **style)

    def figure(self) -> Figure:
        """The sheet as a figure."""
        figure = new_figure(STRIP_WIDTH_IN, self.y + 0.3, pad_in=PAD_IN)
        axes = bare(figure.add_subplot())
        for put in self.drawn:
            put(axes)
        axes.set(xlim=(0, STRIP_WIDTH_IN), ylim=(self.y, 0))
        return figure


def travel_strip(journey: Journey, *, n_measures: int = 4, contrast: Contrast | None = None) -> Figure:
    """The real start, the decoded frames and the real target, with their numbers, nearest real cells and differences.

    Under each frame: cosine and distance to the target, the `n_measures` measures that move most, and how near it is
    to its limits; a frame beyond one has a dashed border and a sign. The contrast is that of the real cells.
    """
    channels = journey.channels
    pictures = checked_crops(journey.pictures, channels, what="frames")
    real = np.stack([journey.start.crop, journey.target.crop, *(cell.crop for cell in journey.nearest)])
    contrast = contrast or shared_contrast(real, channels)
    if len(journey.frames) != len(pictures) or len(journey.nearest) != len(pictures):
        raise InputError(f"{len(pictures)} pictures, {len(journey.frames)} rows: expected one row a frame")
    with figure_style():
        sheet = _Sheet(len(pictures))
        _put_way(sheet, journey, contrast)
        for name, values in _number_rows(journey, n_measures):
            _put_numbers(sheet, name, values)
        _put_nearest(sheet, journey, contrast)
        _put_differences(sheet, journey)
        figure = sheet.figure()
        channel_key(figure, contrast)
        return add_caption(figure, caption=_caption(journey, contrast), alt=_alt(journey))


def _number_rows(journey: Journey, n_measures: int) -> list[tuple[str, list[str]]]:
    """The name of each row of numbers, and one text a column: start, frames, target."""
    frames = journey.frames
    rows = [
        ("cosine to the target", ["", *_texts(frames["cosine"], "{:.2f}"), ""]),
        ("distance to the target", ["", *_texts(frames["distance"], "{:.1f}"), ""]),
    ]
    if len(journey.stops) > 1:
        doses = [dose_label(float(str(name).rpartition("@")[2])) for name in frames["towards"]]
        rows.insert(0, ("on the way to the dose", ["", *doses, ""]))
    if journey.measured is not None:
        for name in journey.measured.most_moved(n_measures):
            start, target = _texts(journey.measured.ends[name], in_three_digits)
            values = [start, *_texts(journey.measured.frames[name], in_three_digits), target]
            (sds,) = _texts([journey.measured.change[name].iloc[-1]], "{:+.1f}")
            rows.append((f"{words_of(name)}; last less first: {sds} s.d. of control cells", values))
    for name, column in (("distance to real cells (limit 1)", "far"), ("moves when embedded anew (limit 1)", "moved")):
        texts = _texts(frames[column], "{:.2f}")
        beyond = [">1.00" if text == "1.00" else text for text in texts]
        marked = [f"{over} {FLAG}" if v > 1 else text for over, text, v in zip(beyond, texts, frames[column])]
        rows.append((name, ["", *marked, ""]))
    return rows


def _put_way(sheet: _Sheet, journey: Journey, contrast: Contrast) -> None:
    title: dict[str, Any] = {"va": "bottom", "fontsize": 9, "fontweight": "bold"}
    sheet.text(sheet.start_x, 0.18, f"{journey.start.label}, real", ha="left", **title)
    sheet.text(STRIP_WIDTH_IN, 0.18, f"{destination(journey)}, real", ha="right", **title)
    sheet.y = 0.22
    sheet.picture(sheet.start_x, cell_image(journey.start.crop, contrast))
    for x, picture, flag in zip(sheet.frames_x, journey.pictures, journey.frames["flag"]):
        sheet.picture(x, cell_image(picture, contrast), flagged=bool(flag))
    sheet.picture(sheet.target_x, cell_image(journey.target.crop, contrast))
    sheet.name(f"decoded by {journey.model}, between two real cells", middle=sheet.y + sheet.side / 2)
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


def _put_nearest(sheet: _Sheet, journey: Journey, contrast: Contrast) -> None:
    sheet.y += 0.08
    sheet.name("the real cell nearest to each frame, and its treatment", middle=sheet.y + sheet.side / 2)
    labels = [_short(cell.label, sheet.side) for cell in journey.nearest]
    for x, cell, label in zip(sheet.frames_x, journey.nearest, labels):
        sheet.picture(x, cell_image(cell.crop, contrast))
        style: dict[str, Any] = {"ha": "center", "va": "top", "fontsize": 5.8, "color": QUIET, "linespacing": 1.05}
        sheet.text(x + sheet.side / 2, sheet.y + sheet.side + 0.02, label, **style)
    sheet.y += sheet.side + 0.1 * max(label.count("\n") + 1 for label in labels) + 0.1


def _put_differences(sheet: _Sheet, journey: Journey) -> None:
    """A map a channel, as many as there is room for, and the scale of their colours."""
    difference = journey.difference
    limit = max(float(np.percentile(np.abs(difference), 99.5)), LEAST_RANGE)
    colours = matplotlib.colormaps[DIVERGING]
    places = [*sheet.frames_x, sheet.target_x]
    n_shown = min(len(difference), len(places) - 2)
    sheet.y += 0.14
    sheet.name("last frame less the first, a map a channel", middle=sheet.y + sheet.side / 2)
    for x, name, channel in zip(places[:n_shown], journey.channels, difference):
        sheet.text(x + sheet.side / 2, sheet.y - 0.02, name, ha="center", va="bottom", fontsize=7.2)
        sheet.picture(x, colours((channel / limit + 1) / 2)[..., :3])
    scale = places[n_shown] + 0.1
    step = (sheet.side - 2 * PAD_IN) / 64
    for i in range(64):
        sheet.block(scale, sheet.y + PAD_IN + i * step, 0.09, step * 1.05, colours(1 - i / 63))
    for share, words in ((0.0, f"+{limit:.2f} brighter"), (0.5, "0 the same"), (1.0, f"−{limit:.2f} darker")):
        sheet.text(scale + 0.13, sheet.y + 0.05 + share * (sheet.side - 0.1), words, va="center", fontsize=6.8)
    sheet.y += sheet.side + 0.05


def destination(journey: Journey) -> str:
    """`taxol 0.3 µM`, and which population of it where there are several."""
    population = journey.population
    if population.of == 1:
        return journey.stops[-1]
    return (
        f"{journey.stops[-1]}, population {population.number} of {population.of} ({percent(population.share)} of cells)"
    )


def _way(journey: Journey) -> str:
    times = "" if journey.beyond == 1 else f", to {journey.beyond:g} times its length; the target is at 1"
    return WAYS[journey.way] + times


def _caption(journey: Journey, contrast: Contrast) -> str:
    population, frames = journey.population, journey.frames
    n_flagged = int((frames["flag"] != "").sum())
    through = f" through {', '.join(journey.stops[:-1])}" if len(journey.stops) > 1 else ""
    stands_for = "all" if population.of == 1 else percent(population.share)
    sentences = [
        f"n = 1 real cell of {journey.start.label} on its way to {destination(journey)}{through}, "
        f"{len(frames)} frames decoded by {journey.model} ({_way(journey)}); the target stands for {stands_for} of "
        f"{population.n_cells} cells.",
        "Nothing between the ends was imaged.",
        "Numbers under real cells are measured on them; a decoded picture is smoother than a real cell, so its "
        "numbers are to be compared with those of the first frame."
        if journey.measured is not None
        else "",
        f"{not_drawn_words(journey)}." if not_drawn_words(journey) else "",
        f"{n_flagged} of {len(frames)} frames leave the data ({FLAG}): beyond what 99 % of real cells show."
        if n_flagged
        else "No frame leaves the data: all are within what 99 % of real cells show.",
        f"{journey.batch_share.words()}." if journey.batch_share is not None else "",
        f"{colour_words(contrast)}; one contrast for all; each channel of a real cell divided by its maximum.",
    ]
    return " ".join(filter(None, sentences))


def not_drawn_words(journey: Journey, n: int = 3) -> str:
    """What real start and target differ in and the frames hardly do, in a sentence without a full stop, or nothing.

    Along a direction nothing is said: there the real target is only a cell near the end.
    """
    if journey.measured is None or journey.way == "direction":
        return ""
    real, decoded = journey.measured.real_change, journey.measured.change.iloc[-1]
    said = [
        "{} (real {} s.d., decoded {})".format(
            words_of(name).split(",")[0], *_texts([real[name], decoded[name]], "{:+.1f}")
        )
        for name in journey.measured.not_drawn(n)
    ]
    return f"The frames do not follow the real cells in: {', '.join(said)}" if said else ""


def _alt(journey: Journey) -> str:
    frames = journey.frames
    words = [
        f"{len(frames)} frames decoded between a real cell of {journey.start.label} and one of "
        f"{destination(journey)}, cosine to the target from {frames['cosine'].iloc[0]:.2f} to "
        f"{frames['cosine'].iloc[-1]:.2f}"
    ]
    if journey.measured is not None:
        for name in journey.measured.most_moved(2):
            first, last = (in_three_digits(journey.measured.frames[name].iloc[at]) for at in (0, -1))
            words.append(f"{words_of(name)}: from {first} to {last}")
    words.append(f"{int((frames['flag'] != '').sum())} frames leave the data")
    return "; ".join(words)


def _short(label: str, side_in: float) -> str:
    """A treatment in lines as wide as a crop, at most four; a hyphen may end a line."""
    lines = wrapped(label.replace("-", "- ").replace(" µM", "\u00a0µM"), int(side_in * 21)).replace("- ", "-")
    return "\n".join(lines.split("\n")[:4])


def _texts(values: Iterable[float], written: str | Callable[[float], str]) -> list[str]:
    form = written.format if isinstance(written, str) else written
    return ["–" if not np.isfinite(value) else form(value).replace("-", "−") for value in map(float, values)]


def percent(share: float) -> str:
    """`15 %`."""
    return f"{100 * share:.0f} %"


def in_three_digits(value: float) -> str:
    """Three digits, as a person writes them."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


POPULATION_LABEL_IN, SIDE_IN = 3.3, 0.95
POPULATION_LABEL_CHARACTERS = 40


def populations(journeys: Sequence[Journey], *, contrast: Contrast | None = None) -> Figure:
    """A row for each population that a journey leads to: the medoid first, then cells of it drawn at random.

    All cells are real. InputError where the journeys lead to no populations.
    """
    if not journeys or any(not journey.population.cells for journey in journeys):
        raise InputError("no populations to show: ask for --targets medoids")
    channels = journeys[0].channels
    rows = [
        [j.target.crop, *(cell.crop for cell in j.population.cells if cell.cell_id != j.target.cell_id)]
        for j in journeys
    ]
    every = np.concatenate([np.stack(row) for row in rows])
    contrast = contrast or shared_contrast(every, channels)
    n_columns = max(map(len, rows))
    n_cells = journeys[0].population.n_cells
    with figure_style():
        height = 0.4 + (SIDE_IN + 2 * PAD_IN) * len(rows)
        figure = new_figure(POPULATION_LABEL_IN + SIDE_IN * (n_columns + SPACE), height, pad_in=PAD_IN)
        grid = cell_grid(figure, len(rows), n_columns + 1, width_ratios=[1.0, SPACE, *[1.0] * (n_columns - 1)])
        for axes_row, row, journey in zip(grid, rows, journeys):
            for axes in axes_row:
                axes.set_axis_off()
            for axes, crop in zip([axes_row[0], *axes_row[2:]], row):
                axes.set_axis_on()
                draw_cell(axes, crop, contrast)
            label_row(axes_row[0], population_words(journey), characters=POPULATION_LABEL_CHARACTERS, size=6.8)
        channel_key(figure, contrast)
        shares = listed([percent(journey.population.share) for journey in journeys])
        return add_caption(
            figure,
            caption=f"n = {n_cells} cells of {journeys[0].stops[-1]} in {len(journeys)} populations ({shares}); "
            "shown are the medoid, apart, and cells of its population drawn at random, all real. Beside them, means of "
            f"what differs most from the other cells. {contrast_words(contrast, every)}",
            alt=f"{len(journeys)} populations of {journeys[0].stops[-1]}: "
            + "; ".join(population_words(journey).replace("\n", ", ") for journey in journeys),
        )


def population_words(journey: Journey) -> str:
    """`population 2 of 3, 28 % of 39 cells`, and a line for each of its marks: `nucleus area 410, others 702`."""
    population = journey.population
    name = (
        f"population {population.number} of {population.of}, {percent(population.share)} of {population.n_cells} cells"
    )
    marks = [
        f"{words_of(measure).split(',')[0]} {in_three_digits(ours)}, others {in_three_digits(others)}"
        for measure, ours, others in population.marks
    ]
    return "\n".join([name, *marks])
