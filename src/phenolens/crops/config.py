"""Settings of the crops: nuclei, illumination, quality, cutting."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from phenolens.core.bounds import Bounded, Bounds, Count, NotNegative, Positive, Share
from phenolens.core.errors import InputError
from phenolens.screens.bbbc021 import PIXEL_UM
from phenolens.screens.screen import Selection, Treatments

Flag = Literal["noise", "saturated", "bright spot", "out of focus"]
FLAGS: tuple[Flag, ...] = ("noise", "saturated", "bright spot", "out of focus")  # as in quality_flags
LEAST_NUCLEI = 1.5  # sides of crops below so many diameters of a nucleus cut cells; the paper's are of about two
LEAST_PX = 4  # diameter of the smallest nucleus that can be searched for, pixels
BLOCK_PX = 4  # side of the block means over which camera noise is averaged, and the least on which is smoothed
Correlation = Annotated[float, Bounds(ge=-1, le=1)]
FilterPx = Annotated[int, Bounds(ge=BLOCK_PX)]
Percentile = Annotated[float, Bounds(ge=0, lt=100)]
Slope = Annotated[float, Bounds(lt=0)]


@dataclass(frozen=True)
class NucleiConfig(Bounded):
    """How nuclei are found. Lengths are in diameters of a usual nucleus, so that one number fits a microscope."""

    nucleus_um: Positive = 15.0  # diameter of a usual nucleus, micrometres (MCF-7)
    pixel_size_um: Positive = PIXEL_UM  # side of a pixel in the specimen, micrometres
    nucleus_px: Positive | None = None  # diameter of a usual nucleus, pixels; replaces the two above
    smooth: Positive = 0.04  # standard deviation of the smoothing before the threshold, diameters
    background: Positive = 5.0  # side of the window whose darkest tenth is the background, diameters
    least_contrast: Positive = 4.0  # least light above the background, standard deviations of a pixel's noise
    # share of a blob's own brightness (90th percentile) above which its shape separates nuclei
    core: Annotated[float, Bounds(ge=0, lt=1)] = 0.5
    split_smooth: NotNegative = 0.04  # standard deviation of the smoothing of that shape's depth, diameters
    split_depth: Positive = 0.04  # how much deeper each of two nuclei is than the neck between them, diameters
    least_area: Positive = 0.1  # smallest nucleus, areas of a usual one
    most_area: Positive = 8.0  # largest nucleus, areas of a usual one
    by: Literal["shape", "cellpose"] = "shape"  # the method below, or Cellpose, which gets the diameter alone

    def __post_init__(self) -> None:
        """Check the bounds, the order of the two areas, and the diameter in pixels."""
        super().__post_init__()
        if not self.least_area < self.most_area:
            raise InputError(f"least_area is {self.least_area}, most_area {self.most_area}; expected least < most")
        if not LEAST_PX <= self.diameter_px <= 1000:
            raise InputError(
                f"a typical nucleus is {self.diameter_px:g} px wide; expected 4 to 1,000: give nucleus_px, or "
                "nucleus_um and pixel_size_um of this microscope"
            )

    @property
    def diameter_px(self) -> float:
        """Diameter of a usual nucleus in pixels."""
        return self.nucleus_px if self.nucleus_px is not None else self.nucleus_um / self.pixel_size_um

    @property
    def usual_area_px(self) -> float:
        """Area of a usual nucleus in pixels."""
        return math.pi / 4 * self.diameter_px**2


@dataclass(frozen=True)
class IlluminationConfig(Bounded):
    """How illumination functions are estimated from a plate's fields; the defaults are the published method.

    The plain mean is limited by how many cells a window of `smooth_px` has over all fields: where few lie counts as
    dark. The foreground mean is not: on simulated plates of 240 fields of 1280 x 1024 px, light that is 7.2 % uneven is
    estimated to 2.2 % by it, to 5.2 % by the defaults (benchmarks/illumination.py).
    """

    smooth_px: FilterPx = 96  # diameter of the median filter over the mean of all fields, pixels
    robust_minimum: Percentile = 2.0  # percentile of the smoothed mean that becomes 1; what is below becomes 1 too
    average: Literal["all", "foreground"] = (
        "all"  # of all pixels, or of the foreground, which needs the offset subtracted
    )
    offset: Literal["keep", "subtract"] = "keep"  # whether the camera's counts without light are subtracted first
    offset_percentile: Percentile = 0.1  # of all 8 x 8 block means of the plate: the counts without light
    least_fields: Count = 60  # a plate with fewer is refused: measured, from 24 fields light is 8.5 % wrong

    def __post_init__(self) -> None:
        """Check the bounds, and that the foreground mean has its offset subtracted."""
        super().__post_init__()
        if self.average == "foreground" and self.offset == "keep":
            raise InputError('average "foreground", the mean of the foreground, needs offset "subtract"; give both')


@dataclass(frozen=True)
class QualityConfig(Bounded):
    """Thresholds from which a crop or field is flagged."""

    noise_correlation: Correlation = 0.5  # a channel whose neighbouring pixels correlate less than this is camera noise
    focus_slope: Slope = -5.5  # a mean slope of log power over log frequency steeper than this is out of focus
    saturated_share: Share = 0.01  # a channel with at least this share of its pixels at the detector's limit
    # largest value of the detector, grey values; left out: estimated from the images of each channel
    detector_maximum: Annotated[int, Bounds(ge=1, le=65_535)] | None = None
    # a bright spot is so many times as bright as its crop's 95th percentile (field: its 99.5th)
    spot_contrast: Positive = 6.0
    # ... and, in a crop, so many times as the brightest spot of the channel's median crop
    spot_brightness: Positive = 3.0
    # ... and has at most so many pixels above half its height; a nucleus has several hundred
    spot_px: Annotated[int, Bounds(ge=1)] = 100
    empty_share: Share = 0.02  # a field with a smaller share of its tiles holding a picture is empty


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
