"""`phenolens features`: describe each latent feature of a run."""

from dataclasses import dataclass, field
from pathlib import Path

from tyro.conf import Positional

from phenolens.core.progress import tell
from phenolens.latent_features.compute import FeaturesConfig, write_features
from phenolens.runs.decoder import chosen_run
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
    page, table = write_features(study, chosen_run(study, flags.run), flags.features)
    tell(f"{int(table['used'].sum())} of {len(table)} features are used")
    tell(f"next: open the page in a browser; {page.with_suffix('.csv').name} in the same folder has its numbers")
    print(page.resolve())
