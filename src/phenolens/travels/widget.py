"""A trajectory in a notebook: choose the frame and the channels. Needs ipywidgets, the extra `notebook`."""

import io
from typing import Any

import numpy as np
from PIL import Image

from phenolens.core.colours import cell_image, shared_contrast
from phenolens.core.errors import InputError
from phenolens.travels.film import frame_lines
from phenolens.travels.trajectory import Trajectory

SIDE_PX = 240
ALL = "all channels"


def travel_widget(trajectory: Trajectory) -> Any:
    """A widget with the frames of a trajectory: real start, decoded frame, real target, and the frame's numbers.

    Args:
        trajectory: What `ph.tl.travel` returns, one of it.

    Returns:
        The widget, which a notebook shows; its children are the controls, the picture and the numbers.

    Raises:
        InputError: ipywidgets is not installed.
    """
    try:
        import ipywidgets
    except ModuleNotFoundError as error:
        raise InputError(
            'ipywidgets is not installed; travel_widget needs: pip install "phenolens[notebook]"'
        ) from error
    frame = ipywidgets.IntSlider(value=1, min=1, max=len(trajectory.pictures), description="frame")
    shown = ipywidgets.Dropdown(options=[ALL, *trajectory.channels], description="shown")
    picture = ipywidgets.Image(format="png")
    numbers = ipywidgets.HTML()

    def draw(change: Any = None) -> None:
        picture.value = png_of(trajectory, frame.value - 1, None if shown.value == ALL else shown.value)
        numbers.value = "<br>".join(
            [
                f"{trajectory.origin} start, decoded frame, {trajectory.origin} target",
                *frame_lines(trajectory, frame.value - 1),
            ]
        )

    frame.observe(draw, "value")
    shown.observe(draw, "value")
    draw()
    return ipywidgets.VBox([ipywidgets.HBox([frame, shown]), picture, numbers])


def png_of(trajectory: Trajectory, frame: int, channel: str | None) -> bytes:
    """Real start, decoded frame and real target side by side, in one contrast: all channels, or one."""
    taken = slice(None) if channel is None else [trajectory.channels.index(channel)]
    channels = trajectory.channels if channel is None else (channel,)
    ends = np.stack([trajectory.start.crop, trajectory.target.crop])[:, taken]
    contrast = shared_contrast(ends, channels)
    cells = [ends[0], trajectory.pictures[frame][taken], ends[1]]
    row = np.concatenate([cell_image(cell, contrast) for cell in cells], axis=1)
    picture = Image.fromarray(np.uint8(255 * row)).resize((len(cells) * SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC)
    written = io.BytesIO()
    picture.save(written, "PNG")
    return written.getvalue()
