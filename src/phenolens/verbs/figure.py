"""`phenolens figure`: one of the paper's figures, as PNG, SVG or PDF."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from tyro.conf import Positional

from phenolens.core.errors import InputError
from phenolens.core.files import write_whole
from phenolens.core.progress import tell
from phenolens.paper_figures.blinded_test_figure import assessment_figure
from phenolens.paper_figures.config import USED_BY, FigureConfig, FigureName
from phenolens.paper_figures.figure2_reconstructions import reconstructions_figure
from phenolens.paper_figures.figure3_interpolation import interpolation_figure
from phenolens.paper_figures.figure4_comparison import comparison_figure
from phenolens.plotting.style import alt_of, caption_of, file_of
from phenolens.study import Study

FIGURES = {
    "reconstructions": reconstructions_figure,
    "interpolation": interpolation_figure,
    "comparison": comparison_figure,
    "assessment": assessment_figure,
}
KINDS = {".png": "png", ".svg": "svg", ".pdf": "pdf"}


@dataclass(frozen=True)
class Flags:
    """What `phenolens figure` takes."""

    what: Positional[FigureName]  # Figure 2, 3, 4; blinded
    study: Positional[Path]  # the study's folder
    out: tuple[Path, ...]  # files to write, as PNG, SVG or PDF by their ending; several at once are the same figure
    caption: bool = True  # write the caption under the figure; otherwise it is printed alone
    figure: FigureConfig = field(default_factory=FigureConfig)

    def __post_init__(self) -> None:
        """Validates files and settings before any work."""
        if not self.out:
            raise InputError("--out: expected at least one file, such as figure.png")
        for path in self.out:
            if path.suffix.lower() not in KINDS:
                raise InputError(f"--out {path}: expected a name that ends in {', '.join(KINDS)}")
            if not path.parent.is_dir() or path.is_dir():
                found = "is a folder" if path.is_dir() else f"there is no folder {path.parent}"
                raise InputError(f"--out {path}: {found}; name a file in an existing folder")
        for setting in dataclasses.fields(FigureConfig):
            given = getattr(self.figure, setting.name) != setting.default
            if given and setting.name not in USED_BY[self.what]:
                flag = f"--{setting.name.replace('_', '-')}"
                theirs = " and ".join(figure for figure, names in USED_BY.items() if setting.name in names)
                raise InputError(f"{flag} is not a setting of the figure {self.what}; it is for {theirs}")


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
