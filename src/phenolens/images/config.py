"""What a person may choose about crops."""

from dataclasses import dataclass

from phenolens.errors import InputError
from phenolens.screen.bbbc021 import Treatments


@dataclass(frozen=True)
class CropConfig:
    """How single-cell crops are made from a screen."""

    crop_px: int = 68  # side of a crop, pixels
    plates: tuple[str, ...] = ()  # plates to take; all when none is named
    wells: tuple[str, ...] = ()  # wells to take, on every plate; all when none is named
    sites: tuple[int, ...] = ()  # sites to take, in every well; all when none is named
    treatments: Treatments = "labelled"  # controls and treatments of known mechanism only, or all
    skip_missing: bool = False  # leave out, and count, what has no image or no label instead of stopping
    noise_correlation: float = 0.5  # a channel whose neighbouring pixels correlate less than this is camera noise
    pixel_size_um: float | None = None  # side of a pixel in the specimen, micrometres; only written down

    def __post_init__(self) -> None:
        if self.crop_px < 1:
            raise InputError(f"--crop-px is {self.crop_px}; expected at least 1 pixel (the paper has 68)")
        if not -1 <= self.noise_correlation <= 1:
            raise InputError(f"--noise-correlation is {self.noise_correlation}; a correlation lies between -1 and 1")
