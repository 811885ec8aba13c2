"""`phenolens travel`: a real cell on its way to a treatment, as pictures that carry numbers."""

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
    """Travel and keep what was seen; the folder's path is the last line."""
    from phenolens.travel.compute import Traveller
    from phenolens.travel.film import check_can_film
    from phenolens.travel.saved import journey_words, keep_travel, travel_command

    study, asked = Study.open(flags.study), flags.travel
    for kind in flags.film:
        check_can_film(kind)
    traveller = Traveller.open(study, flags.run)
    tell(f"travelling with {traveller.pictured.name}")
    folder, journeys = keep_travel(study, traveller, asked, pictures=flags.pictures, films=flags.film)
    for journey in journeys:
        tell(journey_words(journey))
    if not flags.pictures:
        tell("next: read measured.csv, which holds every number; with --pictures png there is a strip to look at")
    elif asked.targets == "mean":
        other = travel_command(study, asked, "--targets", "medoids")
        tell(f"next: look at the strip; where the treated cells are of several kinds: {other}")
    else:
        tell("next: look at the populations, then at the strip of each population")
    print(folder.resolve())
