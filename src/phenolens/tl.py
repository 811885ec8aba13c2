"""Tools: match treatments by mechanism, test differences, and measure what a treatment does to cells."""

from pathlib import Path

import pandas as pd

from phenolens.core.errors import InputError
from phenolens.core.keywords import checked, keyword_settings
from phenolens.profiles import activity as _activity
from phenolens.profiles import average_precision as _average_precision
from phenolens.profiles import nsc as _nsc
from phenolens.profiles import uncertainty as _uncertainty
from phenolens.study import Study
from phenolens.travels.config import TravelConfig
from phenolens.travels.trajectory import Trajectory

__all__ = [
    "activity",
    "average_precision",
    "compare_queries",
    "mean_average_precision",
    "nsc",
    "nscb",
    "realism",
    "travel",
]

activity = checked(_activity.activity)
average_precision = checked(_average_precision.average_precision)
compare_queries = checked(_uncertainty.compare_queries)
mean_average_precision = checked(_average_precision.mean_average_precision)
nsc = checked(_nsc.nsc)
nscb = checked(_nsc.nscb)


@keyword_settings
def travel(
    study: Study | Path | str, *, path: TravelConfig, run: str | None = None, measured: bool = True
) -> tuple[Trajectory, ...]:
    """Interpolate a cell towards a treatment in latent space and decode each step; nothing is written.

    Args:
        study: The study, or its folder.
        path: From which cell to which treatment: `to="taxol@0.3", frames=9`.
        run: The run that decodes; default: the first flow decoder, else VAE+, VAE, AE.
        measured: Measure the shape and texture of each decoded cell, too.

    Returns:
        A trajectory, or with `targets="medoids"` one per population. `.pictures` are the decoded crops (F, C, S, S).

    Raises:
        InputError: There is no such treatment, cell or run, or the run's model does not decode.
    """
    from phenolens.travels.compute import Traveller

    return Traveller.open(Study.open(study), run).travel(path, measured=measured)


@checked
def realism(study: Study | Path | str) -> pd.DataFrame:
    """The realism metrics that `phenolens.realism` measured for a study.

    Args:
        study: The study, or its folder.

    Returns:
        A row per kind of image: Fréchet and kernel distances, precision and recall, a two-sample test, with spreads.

    Raises:
        InputError: Realism is not measured, or crops or models changed since.
    """
    from phenolens.image_realism.saved import saved_realism

    opened = Study.open(study)
    saved = saved_realism(opened)
    if saved is None:
        raise InputError(f"{opened.realism_folder}: missing or out of date; run `phenolens realism {opened.quoted}`")
    return saved.table


def __dir__() -> list[str]:
    return __all__
