"""`phenolens figure`: one of the paper's figures, as PNG, SVG or PDF."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from phenolens.core.errors import InputError
from phenolens.core.files import write_whole
from phenolens.core.progress import tell
from phenolens.paper_figures import compute
from phenolens.paper_figures.compute import FigureConfig
from phenolens.plotting.style import alt_of, caption_of, file_of
from phenolens.study import Study

FIGURES = {
    "reconstructions": compute.reconstructions_figure,
    "interpolation": compute.interpolation_figure,
    "comparison": compute.comparison_figure,
    "assessment": compute.assessment_figure,
}
KINDS = {".png": "png", ".svg": "svg", ".pdf": "pdf"}
# The settings of FigureConfig that each figure has a use for.
OF_FIGURE = {
    "reconstructions": {"runs", "cells", "shown_cells", "apart", "picture_seed"},
    "interpolation": {"runs", "cells", "compounds", "frames", "way", "picture_seed"},
    "comparison": {"runs", "cells", "shown_cells", "treatment", "picture_seed"},
    "assessment": {"assessments"},
}


@dataclass(frozen=True)
class Flags:
    """What `phenolens figure` takes."""

    what: Positional[Literal["reconstructions", "interpolation", "comparison", "assessment"]]  # Figure 2, 3, 4; blinded
    study: Positional[Path]  # the study's folder
    out: tuple[Path, ...]  # files to write, as PNG, SVG or PDF by their ending; several at once are the same figure
    caption: bool = True  # write the caption under the figure; otherwise it is printed alone
    figure: FigureConfig = field(default_factory=FigureConfig)

    def __post_init__(self) -> None:
        """InputError on what cannot be written, or says nothing to this figure, before anything is done."""
        if not self.out:
            raise InputError("--out: expected at least one file, such as figure.png")
        for path in self.out:
            if path.suffix.lower() not in KINDS:
                raise InputError(f"--out {path}: expected a name that ends in {', '.join(KINDS)}")
            if not path.parent.is_dir() or path.is_dir():
                found = "is a folder" if path.is_dir() else f"there is no folder {path.parent}"
                raise InputError(f"--out {path}: {found}; give the name of a file in a folder that is there")
        for setting in dataclasses.fields(FigureConfig):
            given = getattr(self.figure, setting.name) != setting.default
            if given and setting.name not in OF_FIGURE[self.what]:
                flag = f"--{setting.name.replace('_', '-')}"
                theirs = " and ".join(figure for figure, names in OF_FIGURE.items() if setting.name in names)
                raise InputError(f"{flag} says nothing to the figure {self.what}; it is for {theirs}")


def act(flags: Flags) -> None:
    """Draw the figure; the files' paths are the last lines."""
    figure = FIGURES[flags.what](Study.open(flags.study), flags.figure)
    files = [file_of(figure, KINDS[path.suffix.lower()], with_caption=flags.caption) for path in flags.out]  # type: ignore[arg-type]
    for path, content in zip(flags.out, files):
        with write_whole(path) as file:
            file.write(content)
    if not flags.caption:
        tell(caption_of(figure))
    tell(f"for those who cannot see it: {alt_of(figure)}")
    for path in flags.out:
        print(path.resolve())
