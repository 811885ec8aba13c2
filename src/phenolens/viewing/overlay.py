"""Outlines of found nuclei over the DNA channel of their field, to see what was missed, doubled or run together.

H x W pixels; labels 0 background, 1..n nuclei.
"""

import numpy as np
from matplotlib.figure import Figure
from scipy import ndimage

from phenolens.errors import InputError
from phenolens.viewing.canvas import bare, describe, look, new_figure

OUTLINE = "#ff5a3c"
WIDTH_IN = 9.0


def nuclei_overlay(
    dna: np.ndarray, labels: np.ndarray, *, name: str, rows: slice = slice(None), columns: slice = slice(None)
) -> Figure:
    """The DNA channel (H, W) in grey with each nucleus' outline, of the whole field or of a window of it.

    `name` says which field it is. Grey runs from the 1st to the 99.7th percentile of what is shown, its square root
    drawn, so that dim nuclei are seen beside bright ones. InputError when image and labels are not of one size, and
    for a window without a pixel.
    """
    if dna.ndim != 2 or dna.shape != labels.shape:
        raise InputError(f"DNA channel {dna.shape} and labels {labels.shape}: expected two images of one size")
    shown, outlined = dna[rows, columns].astype(np.float32), labels[rows, columns]
    if not shown.size:
        raise InputError(f"rows {rows}, columns {columns}: no pixel of the field {dna.shape} is in this window")
    numbers = np.unique(outlined[outlined > 0])
    low, high = np.percentile(shown, [1, 99.7])
    grey = np.sqrt(np.clip((shown - low) / max(high - low, 1), 0, 1))
    top, left = rows.indices(dna.shape[0])[0], columns.indices(dna.shape[1])[0]
    height, width = shown.shape
    extent = (left - 0.5, left + width - 0.5, top + height - 0.5, top - 0.5)
    with look():
        figure = new_figure(WIDTH_IN, WIDTH_IN * height / width, pad_in=0.02)
        axes = bare(figure.subplots())
        axes.imshow(grey, cmap="gray", vmin=0, vmax=1, extent=extent, interpolation="nearest")
        boxes = ndimage.find_objects(outlined)
        for number in numbers:  # a contour of the nucleus' own box: of the whole field it takes 30 times as long
            box = tuple(slice(max(part.start - 1, 0), part.stop + 1) for part in boxes[number - 1])
            inside = outlined[box] == number
            if min(inside.shape) < 2:
                continue  # a line of pixels at the edge of a window has no outline
            axes.contour(
                np.arange(inside.shape[1]) + left + box[1].start,
                np.arange(inside.shape[0]) + top + box[0].start,
                inside,
                levels=[0.5],
                colors=OUTLINE,
                linewidths=0.7,
            )
        axes.set_aspect("equal")
        window = f"rows {top} to {top + height - 1}, columns {left} to {left + width - 1}"
        return describe(
            figure,
            caption=f"{name}: n = {len(numbers)} nuclei found, outlined over the DNA channel; {window} (px). "
            "Nothing is left out; nuclei cut by the edge are outlined as far as they are seen. Grey is the root of the "
            "light.",
            alt=f"Outlines of {len(numbers)} nuclei over a field's DNA channel",
        )
