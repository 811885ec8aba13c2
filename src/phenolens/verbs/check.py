"""`phenolens check`: what a source holds, what is missing, and which command comes next.

Nothing is written but, with --overlay, one picture of the nuclei found in a field.
"""

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from phenolens.core.bounds import Bounded, Count
from phenolens.core.errors import InputError
from phenolens.core.files import write_whole
from phenolens.core.progress import tell
from phenolens.crops.check import SAMPLE, Checked, check_source, count_nuclei, field_of, found_nuclei, median_field
from phenolens.crops.config import CropConfig
from phenolens.crops.nuclei import NucleiConfig
from phenolens.screens.config import LayoutConfig
from phenolens.screens.layouts import LAYOUTS
from phenolens.screens.screen import Treatments
from phenolens.verbs.crop import LayoutName

NUCLEI_FLAGS = ("pixel_size_um", "nucleus_um", "nucleus_px", "least_contrast")  # flags that CropConfig has too


@dataclass(frozen=True)
class Flags(Bounded):
    """Flags of `phenolens check`."""

    source: Positional[Path]  # folder with the images and tables, or with the crop set
    layout: LayoutName
    reading: LayoutConfig = field(default_factory=LayoutConfig)
    treatments: Treatments = "all"  # controls and treatments of known mechanism only, or all
    skip_missing: bool = False  # count what has no image or no label instead of stopping at the first
    sample: Count = (
        SAMPLE  # fields whose pixels are read for size, type, full scale and quality, and searched for nuclei
    )
    overlay: Path | None = None  # PNG to write: the nuclei found in one field, outlined; nothing else is ever written
    overlay_field: tuple[str, str, int] | None = None  # plate, well, site; left out: the median field of the sample
    cells: Literal["auto", "found", "cellpose"] = "auto"  # how nuclei are searched: here, or by Cellpose (an extra)
    pixel_size_um: float | None = CropConfig.pixel_size_um  # side of a pixel in the specimen, micrometres
    nucleus_um: float = CropConfig.nucleus_um  # diameter of a usual nucleus, micrometres
    nucleus_px: float | None = CropConfig.nucleus_px  # the same in pixels; stands instead of the two above
    least_contrast: float = CropConfig.least_contrast  # least light of a nucleus, deviations of a pixel's noise

    def __post_init__(self) -> None:
        """Check the flags before anything is read."""
        super().__post_init__()
        if self.overlay is None and self.overlay_field is not None:
            raise InputError("--overlay-field names the field that --overlay FILE.png shows; give --overlay too")
        if self.searches and not LAYOUTS[self.layout].has_fields:
            raise InputError(
                f"--layout {self.layout} has no fields to find nuclei in; leave out --overlay and the nucleus' size"
            )
        if self.overlay is not None:
            _refuse_path(self.overlay, self.source)
        if self.searches:
            self.nuclei()

    @property
    def searches(self) -> bool:
        """Whether nuclei are searched: for a picture of them, or because a flag describes them."""
        return self.overlay is not None or bool(self.nuclei_flags()) or self.cells != "auto"

    def nuclei_flags(self) -> dict[str, float]:
        """The flags of nuclei that are not defaults."""
        given = {name: getattr(self, name) for name in NUCLEI_FLAGS}
        return {name: value for name, value in given.items() if value != getattr(CropConfig, name)}

    def nuclei(self) -> NucleiConfig:
        """How nuclei are found, as `phenolens crop` would; InputError where their size is not known."""
        pixel_um = LAYOUTS[self.layout].pixel_um
        return CropConfig(cells=self.cells, **self.nuclei_flags()).nuclei(usual_pixel_um=pixel_um)  # type: ignore[arg-type]


def act(flags: Flags) -> None:
    """Read everything and print the table."""
    checked = check_source(
        flags.source,
        layout=flags.layout,
        config=flags.reading,
        treatments=flags.treatments,
        skip_missing=flags.skip_missing,
        sample=flags.sample,
    )
    nuclei = _nuclei(flags, checked) if flags.searches else []
    table = Table("", "found", title=str(flags.source), title_justify="left")
    for what, words in [*checked.there, *nuclei]:
        table.add_row(what, words)
    if checked.missing:
        table.add_section()
    for what, words in checked.missing:
        table.add_row(what, words)
    Console(width=140).print(table)
    found = "" if checked.has_cells and flags.cells == "auto" else " (cells will be found in the first channel)"
    tell(f"next: {next_command(flags, checked)}{found}")


def next_command(flags: Flags, checked: Checked) -> str:
    """The `phenolens crop` line for what was checked, with the flags that are not defaults."""
    words = ["phenolens", "crop", "STUDY", "--source", str(flags.source), "--layout", flags.layout]
    reading, usual = flags.reading, LayoutConfig()
    for name in ("table", "plate_map", "pattern", "channels", "controls", "centres"):
        value = getattr(reading, name)
        if value != getattr(usual, name):
            words += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, tuple) else (value,))]
    if not checked.screen.treatments["moa"].notna().any():
        words += ["--treatments", "all"]
    if flags.skip_missing:
        words.append("--skip-missing")
    if flags.cells != "auto":
        words += ["--cells", flags.cells]
    if not checked.has_cells or flags.cells != "auto":
        for name, number in flags.nuclei_flags().items():
            words += [f"--{name.replace('_', '-')}", f"{number:g}"]
        if not flags.nuclei_flags() and LAYOUTS[flags.layout].pixel_um is None:
            words += ["--nucleus-px", "PIXELS"]
    return shlex.join(words)


def _nuclei(flags: Flags, checked: Checked) -> list[tuple[str, str]]:
    """How many nuclei are found in the sample; with --overlay the picture of one field is written."""
    config, screen = flags.nuclei(), checked.screen
    shown = None if flags.overlay_field is None else field_of(screen, *flags.overlay_field)
    counted = count_nuclei(screen, sample=flags.sample, config=config)
    n = counted["n_nuclei"]
    by = " by Cellpose" if config.by == "cellpose" else ""
    of = f"channel {screen.channels[0]} of {len(n)} field{'' if len(n) == 1 else 's'}"
    words = (
        f"{n.sum():,} found{by} in {of}, {n.min()} to {n.max()} a field (median "
        f"{n.median():g}), taking a usual nucleus to be {config.diameter_px:.3g} px wide"
    )
    rows = [("nuclei", words)]
    if flags.overlay is not None:
        from phenolens.plotting.quality_figures import nuclei_overlay
        from phenolens.plotting.style import png

        found = found_nuclei(screen, median_field(counted) if shown is None else shown, config=config)
        picture = png(nuclei_overlay(found.dna, found.labels, name=found.name))
        with write_whole(flags.overlay) as file:
            file.write(picture)
        rows.append(("overlay", f"{found.name}: {found.n_nuclei} nuclei outlined in {flags.overlay}"))
    return rows


def _refuse_path(overlay: Path, source: Path) -> None:
    """InputError where no picture can be written; the source is never written to."""
    if overlay.suffix.lower() != ".png":
        raise InputError(f"--overlay {overlay}: expected the name of a picture that ends in .png")
    if not overlay.parent.is_dir() or overlay.is_dir():
        found = "is a folder" if overlay.is_dir() else f"there is no folder {overlay.parent}"
        raise InputError(f"--overlay {overlay}: {found}; give the name of a file in a folder that is there")
    if overlay.resolve().is_relative_to(source.resolve()):
        raise InputError(f"--overlay {overlay}: lies in the source, where nothing is written; give another folder")
