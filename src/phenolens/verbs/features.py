"""`phenolens features`: what each latent feature of a run is used for and goes with."""

from dataclasses import dataclass, field
from pathlib import Path

from tyro.conf import Positional

from phenolens.core.progress import tell
from phenolens.latent_features.compute import FeaturesConfig, run_of, write_features
from phenolens.study import Study


@dataclass(frozen=True)
class Flags:
    """What `phenolens features` takes."""

    study: Positional[Path]  # the study's folder
    run: str | None = None  # the run; left out: the first VAE+, else VAE, else AE
    features: FeaturesConfig = field(default_factory=FeaturesConfig)


def act(flags: Flags) -> None:
    """Write the page and its tables; the page's path is the last line."""
    study = Study.open(flags.study)
    page, verdict = write_features(study, run_of(study, flags.run), flags.features)
    tell(verdict)
    tell(f"next: open the page in a browser; {page.with_suffix('.csv').name} beside it holds the same numbers")
    print(page.resolve())
