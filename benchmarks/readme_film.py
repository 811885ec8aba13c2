"""The film of the README: one simulated control cell interpolated towards treatments, side by side.

phenolens demo demo-study
python benchmarks/readme_film.py demo-study/study docs/figures/travel-simulated.webp
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from PIL import Image, ImageDraw, ImageFont

import phenolens as ph
from phenolens.core.colours import cell_image, colour_names, shared_contrast

SIDE_PX, LINE_PX, GAP_PX = 204, 22, 8  # of a picture, of a line below it, between two pictures
END_MS, FRAME_MS = 1200, 130


@dataclass(frozen=True)
class Flags:
    """What the script takes."""

    study: tyro.conf.Positional[Path]  # a study of the demo
    out: tyro.conf.Positional[Path]  # the animated WebP
    to: tuple[str, ...] = ("actin-disruptors-1@1", "eg5-inhibitors-1@30", "dna-replication-3@100")
    frames: int = 13


def main(flags: Flags) -> None:
    """Decode the frames, put them side by side above the names, and write the film there and back."""
    travels = [ph.tl.travel(flags.study, to=to, frames=flags.frames, measured=False)[0] for to in flags.to]
    films = []
    for travel in travels:
        contrast = shared_contrast(np.stack([travel.start.crop, travel.target.crop]), travel.channels)
        films.append([np.uint8(255 * cell_image(picture, contrast)) for picture in travel.pictures])
    labels = [label(to) for to in flags.to]
    key = f"Simulated cells. {colour_names(contrast)}."
    pictures = [beside(cells, labels, key) for cells in zip(*films, strict=True)]
    there_and_back = [*pictures, *pictures[-2:0:-1]]
    times = [END_MS if n in (0, len(pictures) - 1) else FRAME_MS for n in range(len(there_and_back))]
    first, *rest = there_and_back
    first.save(flags.out, save_all=True, append_images=rest, duration=times, loop=0, quality=70, method=6)
    print(f"{flags.out}: {flags.out.stat().st_size / 1000:.0f} kB")


def label(treatment: str) -> str:
    """`eg5-inhibitors-1@30` as `towards Eg5 inhibitors`."""
    mechanism = treatment.split("@")[0].rsplit("-", 1)[0].replace("-", " ")
    return f"towards {mechanism.replace('dna', 'DNA').replace('eg5', 'Eg5')}"


def beside(cells: tuple[np.ndarray, ...], labels: list[str], key: str) -> Image.Image:
    """One frame: the cells (H, W, 3), each above its label, and a key of all below."""
    width = len(cells) * (SIDE_PX + GAP_PX) - GAP_PX
    frame = Image.new("RGB", (width, SIDE_PX + 2 * LINE_PX), "white")
    draw = ImageDraw.Draw(frame)
    for number, (cell, label) in enumerate(zip(cells, labels, strict=True)):
        left = number * (SIDE_PX + GAP_PX)
        frame.paste(Image.fromarray(cell).resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC), (left, 0))
        at = (left + SIDE_PX / 2, SIDE_PX + 4)
        draw.text(at, label, "black", font=ImageFont.load_default(13), anchor="ma")
    draw.text((width / 2, SIDE_PX + LINE_PX + 2), key, "black", font=ImageFont.load_default(13), anchor="ma")
    return frame


if __name__ == "__main__":
    main(tyro.cli(Flags))
