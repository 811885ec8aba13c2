"""`phenolens travel`: interpolate a real cell towards a treatment in latent space, as pictures with numbers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from phenolens.core.progress import tell
from phenolens.study import Study
from phenolens.travel.config import TravelConfig


@dataclass(frozen=True)
class Flags:
    """What `phenolens travel` takes."""

    study: Positional[Path]  # the study's folder
    travel: TravelConfig
    run: str | None = None  # the run that decodes; left out: the first VAE+, else VAE, else AE
    pictures: tuple[Literal["png", "svg", "pdf"], ...] = ("png", "svg", "pdf")  # kinds of file of each strip
    film: tuple[Literal["gif", "mp4"], ...] = ()  # films beside the strip; mp4 needs the extra film


def act(flags: Flags) -> None:
    """Travel and save the result; the folder's path is the last line."""
    from phenolens.travel.compute import Traveller
    from phenolens.travel.film import check_can_film
    from phenolens.travel.saved import save_travel, summary, travel_command

    study, config = Study.open(flags.study), flags.travel
    for kind in flags.film:
        check_can_film(kind)
    traveller = Traveller.open(study, flags.run)
    tell(f"decoding with {traveller.pictured.name}")
    folder, trajectories = save_travel(study, traveller, config, pictures=flags.pictures, films=flags.film)
    for trajectory in trajectories:
        tell(summary(trajectory))
    if not flags.pictures:
        tell("next: open measured.csv, which holds every number; --pictures png draws the strip")
    elif config.targets == "mean":
        other = travel_command(study, config, "--targets", "medoids")
        tell(f"next: open the strip; if the treated cells are a mixture: {other}")
    else:
        tell("next: open the populations, then the strip of each population")
    print(folder.resolve())
