"""Commands that decode cells or show what was found: travel, realism, features, figure, report."""

from dataclasses import fields
from pathlib import Path
from typing import Literal

from matplotlib.figure import Figure
from tyro.conf import Positional

from phenolens.commands.paths import AnyPath
from phenolens.core.errors import InputError
from phenolens.core.files import write_whole
from phenolens.core.keywords import keyword_settings
from phenolens.core.progress import tell
from phenolens.latent_features.compute import FeaturesConfig, write_features
from phenolens.paper_figures.blinded_test_figure import assessment_figure
from phenolens.paper_figures.config import USED_BY, FigureConfig, FigureName
from phenolens.paper_figures.figure2_reconstructions import reconstructions_figure
from phenolens.paper_figures.figure3_interpolation import interpolation_figure
from phenolens.paper_figures.figure4_comparison import comparison_figure
from phenolens.plotting.style import file_of
from phenolens.realism.compute import RealismConfig
from phenolens.realism.saved import SavedRealism, write_realism
from phenolens.report.compute import ReportConfig, write_report
from phenolens.runs.decoder import find_decoding_run
from phenolens.study import Study
from phenolens.travel.compute import Traveller
from phenolens.travel.config import TravelConfig
from phenolens.travel.film import check_can_film
from phenolens.travel.saved import save_travel, summary

FIGURES = {
    "reconstructions": reconstructions_figure,
    "interpolation": interpolation_figure,
    "comparison": comparison_figure,
    "assessment": assessment_figure,
}
FORMATS: dict[str, Literal["png", "svg", "pdf"]] = {".png": "png", ".svg": "svg", ".pdf": "pdf"}


@keyword_settings
def travel(
    study: Positional[AnyPath],
    *,
    path: TravelConfig,
    run: str | None = None,
    pictures: tuple[Literal["png", "svg", "pdf"], ...] = ("png", "svg", "pdf"),
    film: tuple[Literal["gif", "mp4"], ...] = (),
) -> Path:
    """Interpolate a cell towards a treatment in latent space, decode each step and compare it with real cells.

    Args:
        study: The study, or its folder.
        path: From which cell to which treatment: `to="taxol@0.3", frames=9`.
        run: The run that decodes; default: the first VAE+, else VAE, else AE.
        pictures: File formats of each strip.
        film: Films beside the strip; mp4 needs the extra film.

    Returns:
        The folder of the travel with strips, films and tables; `measured.csv` holds every number.

    Raises:
        InputError: There is no such treatment, cell or run, or the run's model does not decode.
    """
    opened = Study.open(study)
    for kind in film:
        check_can_film(kind)
    traveller = Traveller.open(opened, run)
    tell(f"decoding with {traveller.run.name}")
    folder, trajectories = save_travel(opened, traveller, path, pictures=pictures, films=film)
    for trajectory in trajectories:
        tell(summary(trajectory))
    return folder


@keyword_settings
def realism(
    study: Positional[AnyPath], *, runs: tuple[str, ...] = (), measuring: RealismConfig = RealismConfig()
) -> SavedRealism:
    """Measure how realistic decoded images are, beside real and blurred cells.

    Args:
        study: The study, or its folder.
        runs: Runs to measure; default: all trained runs that decode.
        measuring: How many cells, and from which seed.

    Returns:
        The results: `.table` has a row per kind of image, `.folder` the tables and the figure.

    Raises:
        InputError: There is no such run, or its model does not decode.
    """
    return write_realism(Study.open(study), runs, measuring)


@keyword_settings
def features(
    study: Positional[AnyPath], *, run: str | None = None, describing: FeaturesConfig = FeaturesConfig()
) -> Path:
    """Describe each latent feature of a run: what it changes in images and what it correlates with.

    Args:
        study: The study, or its folder.
        run: The run; default: the first VAE+, else VAE, else AE.
        describing: How many cells are measured, and how many features are shown.

    Returns:
        The page. The tables beside it have the same numbers.

    Raises:
        InputError: There is no such run, it is not embedded, or its model does not decode.
    """
    opened = Study.open(study)
    page, table = write_features(opened, find_decoding_run(opened, run), describing)
    tell(f"{int(table['used'].sum())} of {len(table)} features are used")
    return page


@keyword_settings
def figure(
    what: Positional[FigureName],
    study: Positional[AnyPath],
    *,
    out: tuple[Path, ...] = (),
    caption: bool = True,
    shown: FigureConfig = FigureConfig(),
) -> Figure:
    """Draw a figure of the paper: reconstructions (Figure 2), interpolation (3), comparison (4), or a blinded test.

    Args:
        what: Which figure.
        study: The study, or its folder.
        out: Files to write, as PNG, SVG or PDF by their endings.
        caption: Write the caption under the figure in the files.
        shown: Which runs and cells are shown: `runs=["vaeplus-seed0"], shown_cells=8`.

    Returns:
        The figure, without the caption.

    Raises:
        InputError: A file cannot be written, the figure has no such setting, or a run or cell does not exist.
    """
    _check_figure(what, out, shown)
    drawn = FIGURES[what](Study.open(study), shown)
    contents = [file_of(drawn, FORMATS[path.suffix.lower()], with_caption=caption) for path in out]
    for path, content in zip(out, contents):
        with write_whole(path) as file:
            file.write(content)
    return drawn


def _check_figure(what: FigureName, out: tuple[Path, ...], config: FigureConfig) -> None:
    """InputError on a file that cannot be written or a setting of another figure, before anything is drawn."""
    for path in out:
        if path.suffix.lower() not in FORMATS:
            raise InputError(f"--out {path}: expected a name that ends in {', '.join(FORMATS)}")
        if not path.parent.is_dir() or path.is_dir():
            found = "is a folder" if path.is_dir() else f"there is no folder {path.parent}"
            raise InputError(f"--out {path}: {found}; name a file in an existing folder")
    for setting in fields(FigureConfig):
        if getattr(config, setting.name) != setting.default and setting.name not in USED_BY[what]:
            flag = f"--{setting.name.replace('_', '-')}"
            others = " and ".join(name for name, settings in USED_BY.items() if setting.name in settings)
            raise InputError(f"{flag} is not a setting of the figure {what}; it is for {others}")


@keyword_settings
def report(study: Positional[AnyPath], *, reporting: ReportConfig = ReportConfig()) -> Path:
    """Write the report of a study, one page that opens anywhere.

    Args:
        study: The study, or its folder.
        reporting: Which run is shown, and how many cells.

    Returns:
        The page.

    Raises:
        InputError: Nothing is scored, or a step is out of date; the message names the command that comes first.
    """
    opened = Study.open(study)
    write_report(opened, reporting)
    return opened.report_path
