"""Commands that load models: run, demo, travel, realism, features, figure, report."""

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from phenolens import pipeline
from phenolens.commands.image_commands import LayoutName, crop, known_layout, simulate
from phenolens.commands.paths import AnyPath
from phenolens.core.bounds import Count, NotNegativeCount, Seed
from phenolens.core.errors import InputError
from phenolens.core.files import write_whole
from phenolens.core.keywords import keyword_settings
from phenolens.core.progress import tell
from phenolens.core.workers import AtOnce, check_scheduler
from phenolens.crops.config import CropConfig
from phenolens.image_realism.config import RealismConfig
from phenolens.latent_features.config import FeaturesConfig
from phenolens.models import MODELS
from phenolens.models.config import FlowConfig, PCAConfig
from phenolens.paper_figures.config import USED_BY, FigureConfig, FigureName
from phenolens.pipeline import EmbedConfig, EvaluateConfig, ProfileConfig
from phenolens.profiles.kinds import check_cells, few_controls
from phenolens.reports.config import ReportConfig
from phenolens.screens.bbbc021 import SIMULATION_FILE
from phenolens.screens.config import LayoutConfig
from phenolens.screens.layouts import LAYOUTS
from phenolens.screens.remote import errors_by_address
from phenolens.simulation.screen_design import SimulateConfig
from phenolens.study import MARKER, Study
from phenolens.training.config import ModelName, RecommendedTraining, TrainConfig, check_can_watch
from phenolens.travels.config import TravelConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from phenolens.image_realism.saved import SavedRealism

MOST_MEASURED = 100_000  # cells that `run` measures: a quarter of an hour on one core; `measure` takes any number
USUAL_CHANNELS = 3  # to build a model before the channels are known
ENCODER = "imagenet"  # the recommended one: it embeds, a flow decoder draws
SHORT_TRAINING = 2_000  # steps, a few minutes; a first report comes before what takes longer
DEMO_STEPS, DEMO_BATCH_SIZE, DEMO_WIDTH = 1500, 8, 48  # of the decoder: a short training of a small network
FORMATS: dict[str, Literal["png", "svg", "pdf"]] = {".png": "png", ".svg": "svg", ".pdf": "pdf"}


@keyword_settings
@errors_by_address()
def run(
    study: Positional[AnyPath],
    *,
    source: AnyPath,
    layout: LayoutName | None = None,
    also: tuple[ModelName, ...] = ("pca",),
    reading: LayoutConfig = LayoutConfig(),
    cropping: CropConfig = CropConfig(),
    parallel: AtOnce = AtOnce(),
    training: RecommendedTraining = RecommendedTraining(),
    profiling: ProfileConfig = ProfileConfig(),
    scoring: EvaluateConfig = EvaluateConfig(),
    reporting: ReportConfig = ReportConfig(),
) -> Study:
    """Crop, measure, train, embed, profile, evaluate and report; finished steps are kept.

    The recommended recipe embeds with `imagenet` and trains a `flow` decoder of these embeddings; `--model vaeplus` is
    the recipe of Lafarge et al. 2019. Models without a training are scored and reported before a long training begins.

    Args:
        study: The study's folder; it is created when it is new or empty.
        source: Folder with the images and tables, or with the crop set.
        layout: File layout of the source (docs/formats.md): a BBBC021 download, the public crop set, ... Left out,
            it is guessed from the names of the files.
        also: Further models to train and score, for comparison.
        reading: Table, plate map, channels, controls and centres of the source.
        cropping: How crops are cut.
        parallel: How many processes cut crops at once, or the Dask cluster that crops, embeds and profiles; the
            results are the same.
        training: How models are trained; `of` may also name a model, which is trained and embedded first.
        profiling: How cells become profiles.
        scoring: How treatments are matched.
        reporting: Which run is shown, and how many cells.

    Returns:
        The study. `study.scores` has the scores, `study.report_path` is the report.

    Raises:
        InputError: The source or a setting cannot be used, or the folder holds something else.
    """
    check_can_watch(training)
    check_scheduler(parallel)
    folder, layout, reading = known_layout(Path(source), layout, reading)

    from phenolens.models.interface import Trained
    from phenolens.reports.compute import write_report
    from phenolens.runs.cell_measures import measure_cells

    trainings = _trainings(training, also)
    for config in trainings:
        spec = MODELS[config.model]
        spec.check_installed()
        if LAYOUTS[layout].has_fields and issubclass(spec.load(), Trained):  # InputError on another side
            spec.build(USUAL_CHANNELS, cropping.crop_px, config.network)
    if LAYOUTS[layout].has_fields:  # what the plate map says comes before any crop is cut
        screen, _ = LAYOUTS[layout].open(folder, reading, cropping.selection())
        pipeline.check_design(screen.table, scoring, where=source)
        if few := few_controls(screen.table):
            tell(f"note: {few}")
    opened = crop(study, source=folder, layout=layout, reading=reading, cropping=cropping, parallel=parallel)
    store = opened.crops
    for why in pipeline.check_design(store.cells, scoring, where=store.folder).values():
        tell(f"will not be scored: {why}")
    check_cells(store.cells, profiling)
    if len(store) <= MOST_MEASURED:
        measure_cells(opened, at_once=parallel)
    n_crops, names = int((~store.cells["is_noise"]).sum()), [pipeline.run_name(config) for config in trainings]
    for config, each in zip(trainings, names, strict=True):
        if _is_long(config) and each != names[0] and not opened.report_path.exists():
            pipeline.evaluate_all(opened, scoring)
            write_report(opened, replace(reporting, run=names[0]))
            tell(f"first report: {opened.report_path}; it is written again with {each} when that is trained")
        pipeline.train(opened, with_few_crops(config, n_crops=n_crops), name=each)
        embedding = EmbedConfig(device=config.device, threads=config.threads)
        pipeline.embed(opened, each, embedding, scheduler=parallel.scheduler)
        pipeline.profile(opened, each, profiling, scheduler=parallel.scheduler)
        tell(f"{each}: trained, embedded, profiled")
    pipeline.evaluate_all(opened, scoring)
    write_report(opened, replace(reporting, run=reporting.run or pipeline.run_name(training)))
    return opened


def _trainings(training: TrainConfig, also: Sequence[str]) -> list[TrainConfig]:
    """What is trained, in order: first what takes no steps; a decoder after the model whose embeddings it draws."""
    planned: list[TrainConfig] = []
    for config in (training, *(training.of_model(model) for model in also if model != training.model)):
        network = config.network
        if isinstance(network, FlowConfig) and network.of in ("", *MODELS):
            encoder = training.of_model(network.of or ENCODER)
            planned.append(encoder)
            config = replace(config, network=replace(network, of=pipeline.run_name(encoder)))
        planned.append(config)
    distinct = {pipeline.run_name(config): config for config in planned}
    return sorted(distinct.values(), key=_takes_steps)


def _takes_steps(training: TrainConfig) -> bool:
    from phenolens.models.interface import Trained

    return issubclass(MODELS[training.model].load(), Trained)


def _is_long(training: TrainConfig) -> bool:
    return _takes_steps(training) and training.steps > SHORT_TRAINING


def with_few_crops(training: TrainConfig, *, n_crops: int) -> TrainConfig:
    """The training; for PCA of few crops with fewer components, unless their number is given."""
    if training.network != PCAConfig() or n_crops > 2 * PCAConfig.latent_size:
        return training
    return replace(training, network=PCAConfig(latent_size=max(n_crops // 2, 1)))


@keyword_settings
def demo(
    out: Positional[AnyPath], *, steps: NotNegativeCount = DEMO_STEPS, seed: Seed = 0, threads: Count | None = None
) -> Study:
    """Simulate a small screen and analyse it, from images to a report, in five to ten minutes on two cores.

    Args:
        out: Folder to create; the screen goes into OUT/screen, the study into OUT/study.
        steps: Training steps of the decoder; more give truer pictures.
        seed: Random seed of the screen and of the training.
        threads: Processor threads; default: all.

    Returns:
        The study.

    Raises:
        InputError: The folder holds something else.
    """
    folder = Path(out)
    screen, study = folder / "screen", folder / "study"
    begun = (screen / SIMULATION_FILE).exists() or (study / MARKER).exists()
    if folder.exists() and not begun and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: is not empty and not a phenolens demo; name a new or empty folder")
    network = FlowConfig(flow_width=DEMO_WIDTH)
    training = RecommendedTraining(steps=steps, seed=seed, batch_size=DEMO_BATCH_SIZE, threads=threads, network=network)
    tell("simulating a screen of 12 mechanisms on 4 plates, cell by cell")
    simulate(screen, processes=threads, screen=SimulateConfig(seed=seed))
    return run(study, source=screen, layout="bbbc021", training=training)


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
        path: Start, target and form of the path: `to="taxol@0.3", frames=9`.
        run: The run that decodes; default: the first flow decoder, else VAE+, VAE, AE.
        pictures: File formats of the strips.
        film: Films to write in addition to the strip; mp4 needs the extra film.

    Returns:
        The folder of the travel with strips, films and tables; `measured.csv` holds every number.

    Raises:
        InputError: There is no such treatment, cell or run, or the run's model does not decode.
    """
    opened = Study.open(study)

    from phenolens.travels.compute import Traveller
    from phenolens.travels.figure import summary
    from phenolens.travels.film import check_can_film
    from phenolens.travels.saved import save_travel

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
) -> "SavedRealism":
    """Measure how realistic decoded images are, compared with real and blurred cells.

    Args:
        study: The study, or its folder.
        runs: Runs to measure; default: all trained runs that decode, or that draw cells.
        measuring: How many cells, and from which seed.

    Returns:
        The results: `.table` has a row per kind of image, `.folder` the tables and the figure.

    Raises:
        InputError: There is no such run, or its model neither decodes nor draws.
    """
    opened = Study.open(study)

    from phenolens.image_realism.saved import write_realism

    return write_realism(opened, runs, measuring)


@keyword_settings
def features(
    study: Positional[AnyPath], *, run: str | None = None, describing: FeaturesConfig = FeaturesConfig()
) -> Path:
    """Describe each latent feature of a run: what it changes in images and what it correlates with.

    Args:
        study: The study, or its folder.
        run: The run; default: the first flow decoder, else VAE+, VAE, AE.
        describing: How many cells are measured, and how many features are shown.

    Returns:
        The page. The tables in its folder have the same numbers.

    Raises:
        InputError: There is no such run, it is not embedded, or its model does not decode.
    """
    opened = Study.open(study)

    from phenolens.latent_features.compute import write_features
    from phenolens.runs.decoder import find_decoding_run

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
) -> "Figure":
    """Draw a figure of the paper: reconstructions (Figure 2), interpolation (3), comparison (4), or a blinded test.

    Args:
        what: Which figure.
        study: The study, or its folder.
        out: Files to write; the ending .png, .svg or .pdf gives the format.
        caption: Write the caption under the figure in the files.
        shown: Which runs and cells are shown: `runs=["vaeplus-seed0"], shown_cells=8`.

    Returns:
        The figure, without the caption.

    Raises:
        InputError: A file cannot be written, the figure has no such setting, or a run or cell does not exist.
    """
    _check_figure(what, out, shown)
    opened = Study.open(study)

    from phenolens.paper_figures.blinded_test_figure import assessment_figure
    from phenolens.paper_figures.figure2_reconstructions import reconstructions_figure
    from phenolens.paper_figures.figure3_interpolation import interpolation_figure
    from phenolens.paper_figures.figure4_comparison import comparison_figure
    from phenolens.plotting.style import file_of

    figures = {
        "reconstructions": reconstructions_figure,
        "interpolation": interpolation_figure,
        "comparison": comparison_figure,
        "assessment": assessment_figure,
    }
    drawn = figures[what](opened, shown)
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

    from phenolens.reports.compute import write_report

    write_report(opened, reporting)
    return opened.report_path
