"""Settings of the crops."""

from dataclasses import dataclass
from typing import Literal

from phenolens.core.bounds import Bounded, Count, Positive, Share
from phenolens.core.errors import InputError
from phenolens.crops.illumination import FilterPx, IlluminationConfig
from phenolens.crops.nuclei import NucleiConfig
from phenolens.crops.quality_control import Correlation, QualityConfig, Slope
from phenolens.screens.screen import Selection, Treatments

Flag = Literal["noise", "saturated", "bright spot", "out of focus"]
FLAGS: tuple[Flag, ...] = ("noise", "saturated", "bright spot", "out of focus")  # as in quality_flags


LEAST_NUCLEI = 1.5  # sides of crops below so many diameters of a nucleus cut cells; the paper's are of about two


def suggested_crop_px(nucleus_px: float) -> int:
    """The side of a crop, three nuclei wide, that every model takes: 36, 44, 52 ... px."""
    return 28 + 8 * max(1, round((3 * nucleus_px - 28) / 8))


@dataclass(frozen=True)
class CropConfig(Bounded):
    """How single-cell crops are made from a screen."""

    crop_px: Count = 68  # side of a crop, pixels (the paper: 68)
    plates: tuple[str, ...] = ()  # plates to take; all when none is named
    wells: tuple[str, ...] = ()  # wells to take, on every plate; all when none is named
    sites: tuple[int, ...] = ()  # sites to take, in every well; all when none is named
    treatments: Treatments = "labelled"  # controls and treatments of known mechanism (all where none is), or all
    skip_missing: bool = False  # leave out, and count, fields without an image or a label
    pixel_size_um: Positive | None = None  # side of a pixel in the specimen, micrometres
    # centres given in a table, found here, or found here by Cellpose (an extra, with weights of its own); auto: given
    # where there is a table, else found
    cells: Literal["auto", "given", "found", "cellpose"] = "auto"
    nucleus_um: Positive = 15.0  # typical diameter of a nucleus, micrometres, for cells found here (MCF-7)
    nucleus_px: Positive | None = None  # the same in pixels; replaces --nucleus-um and --pixel-size-um
    least_contrast: Positive = 4.0  # minimum brightness of a nucleus over the background, SDs of pixel noise
    # corrected: divided by each plate's uneven illumination, estimated as the mean of its fields; foreground: estimated
    # as the mean of their foreground alone, with the offset subtracted; given: the functions that the source has (jump)
    illumination: Literal["as it is", "corrected", "foreground", "given"] = "as it is"
    illumination_px: FilterPx = 96  # diameter of the filter that smooths a plate's mean field, pixels
    illumination_offset: Literal["keep", "subtract"] = "keep"  # with --illumination corrected: the camera's dark counts
    least_fields: Count = 60  # minimum fields per plate to separate illumination from cells
    noise_correlation: Correlation = 0.5  # a channel whose neighbouring pixels correlate less than this is camera noise
    focus_slope: Slope = -5.5  # a mean slope of log power over log frequency steeper than this is out of focus
    saturated_share: Share = 0.01  # a channel with at least this share of its pixels at the detector's limit
    # flags that exclude a crop from training and profiles; dividing cells are often saturated or out of focus
    leave_out: tuple[Flag, ...] = ("noise",)

    def __post_init__(self) -> None:
        """Check the bounds, and that a nucleus has a usable size in pixels."""
        super().__post_init__()
        self.nuclei(usual_pixel_um=1.0)

    def selection(self) -> Selection:
        """The part of the source that is taken."""
        return Selection(self.treatments, self.plates, self.wells, self.sites, self.skip_missing)

    def quality(self) -> QualityConfig:
        """Thresholds from which a crop is flagged."""
        return QualityConfig(
            noise_correlation=self.noise_correlation,
            focus_slope=self.focus_slope,
            saturated_share=self.saturated_share,
        )

    def light(self) -> IlluminationConfig:
        """How illumination is estimated."""
        return IlluminationConfig(
            smooth_px=self.illumination_px,
            average="foreground" if self.illumination == "foreground" else "all",
            offset="subtract" if self.illumination == "foreground" else self.illumination_offset,
            least_fields=self.least_fields,
        )

    def nuclei(self, *, usual_pixel_um: float | None) -> NucleiConfig:
        """How nuclei are found; `usual_pixel_um` is the layout's own, None where it has none.

        InputError where the size of a pixel is not known in any way.
        """
        pixel_size_um = self.pixel_size_um or usual_pixel_um
        if self.nucleus_px is None and pixel_size_um is None:
            raise InputError(
                "finding cells requires the size of a nucleus in pixels; give --pixel-size-um (and "
                "--nucleus-um where they are not of 15 um) or --nucleus-px"
            )
        return NucleiConfig(
            nucleus_um=self.nucleus_um,
            pixel_size_um=pixel_size_um or 1.0,
            nucleus_px=self.nucleus_px,
            least_contrast=self.least_contrast,
            by="cellpose" if self.cells == "cellpose" else "shape",
        )
