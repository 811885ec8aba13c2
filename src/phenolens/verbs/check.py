"""`phenolens check`: what a source holds, what is missing, and which command comes next. Nothing is written."""

import shlex
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from phenolens.errors import at_least
from phenolens.images.checking import Checked, check_source
from phenolens.progress import tell
from phenolens.screen.bbbc021 import Treatments
from phenolens.screen.layout_config import LayoutConfig
from phenolens.verbs.crop import Layout


@dataclass(frozen=True)
class Flags:
    """What `phenolens check` takes."""

    source: Positional[Path]  # folder with the images and tables, or with the crop set
    layout: Layout  # how the source lies on disk; docs/formats.md says what each holds
    reading: LayoutConfig = field(default_factory=LayoutConfig)
    treatments: Treatments = "all"  # controls and treatments of known mechanism only, or all
    skip_missing: bool = False  # count what has no image or no label instead of stopping at the first
    sample: int = 8  # fields whose pixels are read for size, type and full scale

    def __post_init__(self) -> None:
        """InputError on a number that cannot be."""
        at_least("--sample", self.sample, 1)


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
    table = Table("", "found", title=str(flags.source), title_justify="left")
    for what, words in checked.there:
        table.add_row(what, words)
    if checked.missing:
        table.add_section()
    for what, words in checked.missing:
        table.add_row(what, words)
    Console(width=140).print(table)
    found = "" if checked.has_cells else " (cells will be found in the first channel)"
    tell(f"next: {next_command(flags, checked)}{found}")


def next_command(flags: Flags, checked: Checked) -> str:
    """The whole `phenolens crop` line for what was checked; only what is not a default is said."""
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
    if not checked.has_cells and flags.layout != "bbbc021":
        words += ["--nucleus-px", "PIXELS"]
    return shlex.join(words)
