"""How a table was scored, on a page from which another lab can repeat the scores without this package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from phenolens import __version__
from phenolens.profiles.evaluate import held_out, shortened
from phenolens.profiles.profiles import TRIMMED_SHARE, metadata

if TYPE_CHECKING:
    from phenolens.profiles.evaluate import Evaluation

LISTED = 1000  # names in a list at most


def protocol_text(evaluation: Evaluation) -> str:
    """The page (Markdown) of an evaluation, filled from the settings and objects that made the scores."""
    folder = Path(__file__).parent / "templates"
    environment = Environment(
        loader=FileSystemLoader(folder),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["listed"] = lambda names: shortened(list(names), LISTED)
    profiles = evaluation.profiles
    obs = metadata(profiles.whitened, ("role", "plate", "batch"))
    return environment.get_template("protocol.md").render(
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
