"""A trajectory as a film, GIF or MP4: decoded frames between the two real cells, with their numbers.

F frames, H x W px of the film. A trajectory gives the same bytes with the same version of the writing library.
"""

import io
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Text
from PIL import Image

from phenolens.core.colours import Contrast, cell_image, colour_names, shared_contrast
from phenolens.core.errors import InputError
from phenolens.morphology.features import describe
from phenolens.plotting.cell_images import wrapped
from phenolens.plotting.style import QUIET, bare, figure_style
from phenolens.travels.figure import FLAG, destination, in_three_digits
from phenolens.travels.trajectory import Trajectory

FilmKind = Literal["gif", "mp4"]

WIDTH_IN, HEIGHT_IN, DPI = 6.4, 4.0, 120  # 768 x 480 px: multiples of 16, as codecs like them
SIDE_IN, SMALL_IN = 2.4, 1.5  # of the frame, and of the real cells next to it
MARGIN_IN = 0.1  # left and right of a text at least
FRAMES_S = 4.0  # all frames together
LEAST_FRAME_S = 0.08
AT_THE_ENDS_S = 1.0  # the first and the last frame
FPS = 25  # of an MP4
N_MEASURES = 2
INSTALL = 'imageio-ffmpeg is not installed; --film mp4 needs: pip install "phenolens[film]"'


def film(trajectory: Trajectory, kind: FilmKind, *, contrast: Contrast | None = None, comment: str = "") -> bytes:
    """Encode a trajectory as a film, with `comment` in the file's metadata.

    Raises:
        InputError: the library that writes MP4 is not installed.
    """
    frames = film_frames(trajectory, contrast=contrast)
    seconds = frame_seconds(len(frames))
    return _gif(frames, seconds, comment) if kind == "gif" else _mp4(frames, seconds, comment)


def check_can_film(kind: FilmKind) -> None:
    """InputError where the library that writes MP4, or its ffmpeg, is not installed."""
    if kind == "mp4":
        try:
            import imageio_ffmpeg

            imageio_ffmpeg.get_ffmpeg_exe()
        except ModuleNotFoundError as error:
            raise InputError(INSTALL) from error
        except RuntimeError as error:
            raise InputError(f"imageio-ffmpeg finds no program ffmpeg ({error}); --film gif needs none") from error


def frame_seconds(n_frames: int) -> list[float]:
    """How long each frame is shown."""
    between = max(FRAMES_S / n_frames, LEAST_FRAME_S)
    return [AT_THE_ENDS_S, *[between] * (n_frames - 2), AT_THE_ENDS_S]


def film_frames(trajectory: Trajectory, *, contrast: Contrast | None = None) -> np.ndarray:
    """The film's pictures (F, H, W, 3) uint8: real start, frame, real target, with the frame's numbers below."""
    contrast = contrast or shared_contrast(
        np.stack([trajectory.start.crop, trajectory.target.crop]), trajectory.channels
    )
    with figure_style():
        figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN), dpi=DPI)
        canvas = FigureCanvasAgg(figure)
        axes = bare(figure.add_axes((0, 0, 1, 1)))
        middle, top = WIDTH_IN / 2, 0.45
        small_top = top + (SIDE_IN - SMALL_IN) / 2

        sides = (
            (0.2, trajectory.start.crop, f"{trajectory.origin} start"),
            (WIDTH_IN - 0.2 - SMALL_IN, trajectory.target.crop, f"{trajectory.origin} target"),
        )
        for x, crop, label in sides:
            _put(axes, cell_image(crop, contrast), x, small_top, SMALL_IN)
            below = small_top + SMALL_IN + 0.06
            axes.text(x + SMALL_IN / 2, below, label, ha="center", va="top", fontsize=8, color=QUIET)
        title = f"{trajectory.start.label} to {destination(trajectory)}, decoded by {trajectory.model}"
        _fit(
            axes.text(middle, 0.24, wrapped(title, 84), ha="center", va="center", fontsize=9, fontweight="bold"), canvas
        )
        colours = f"{colour_names(contrast)}; one contrast for all"
        _fit(axes.text(middle, HEIGHT_IN - 0.14, colours, ha="center", va="bottom", fontsize=8, color=QUIET), canvas)
        moving = _put(axes, cell_image(trajectory.pictures[0], contrast), middle - SIDE_IN / 2, top, SIDE_IN)
        axes.set(xlim=(0, WIDTH_IN), ylim=(HEIGHT_IN, 0))  # imshow changed them
        numbers = axes.text(middle, top + SIDE_IN + 0.12, "", ha="center", va="top", fontsize=8, linespacing=1.4)
        pictures = []
        for number, picture in enumerate(trajectory.pictures):
            moving.set_data(cell_image(picture, contrast))
            numbers.set(text="\n".join(frame_lines(trajectory, number)), fontsize=8)
            _fit(numbers, canvas)
            canvas.draw()
            pictures.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    return np.stack(pictures)


def frame_lines(trajectory: Trajectory, number: int) -> list[str]:
    """The text under a frame: how near it comes, the shown measures, whether it is out of distribution."""
    row = trajectory.frames.iloc[number]
    lines = [": ".join(filter(None, (f"frame {number + 1} of {len(trajectory.frames)}", trajectory.nearness(number))))]
    if trajectory.measured is not None:
        for name in trajectory.shown_measures(N_MEASURES):
            lines.append(f"{describe(name)}: {in_three_digits(trajectory.measured.frames[name].iloc[number])}")
    times = max(row[["far", "moved"]].dropna(), default=0.0)
    return [*lines, f"{FLAG} out of distribution, {times:.3g} times the limit" if row["flag"] else ""]


def _put(axes: Axes, picture: np.ndarray, x: float, y: float, side: float) -> AxesImage:
    return axes.imshow(picture, extent=(x, x + side, y + side, y), interpolation="nearest", aspect="auto")


def _fit(text: Text, canvas: FigureCanvasAgg) -> None:
    """Shrink a text until it fits the film."""
    widest = (WIDTH_IN - 2 * MARGIN_IN) * DPI
    while text.get_window_extent(canvas.get_renderer()).width > widest:  # letters shrink by whole pixels
        text.set_fontsize(0.95 * float(text.get_fontsize()))


def _gif(frames: np.ndarray, seconds: list[float], comment: str) -> bytes:
    # one palette for all frames avoids flicker; this method keeps the cells' dark colours best
    every = Image.fromarray(frames.reshape(-1, frames.shape[2], 3))
    palette = every.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    pictures = [Image.fromarray(frame).quantize(palette=palette) for frame in frames]
    buffer = io.BytesIO()
    pictures[0].save(
        buffer,
        format="GIF",
        save_all=True,
        append_images=pictures[1:],
        duration=[round(1000 * s) for s in seconds],
        loop=0,
        comment=comment.encode(),
    )
    return buffer.getvalue()


def _mp4(frames: np.ndarray, seconds: list[float], comment: str) -> bytes:
    check_can_film("mp4")
    import imageio_ffmpeg

    # one thread and no dates, for reproducible bytes
    plain = ["-threads", "1", "-fflags", "+bitexact", "-flags:v", "+bitexact", "-metadata", f"comment={comment}"]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        height, width = frames.shape[1:3]
        writer = imageio_ffmpeg.write_frames(
            str(path), (width, height), fps=FPS, codec="libx264", quality=7, output_params=plain
        )
        writer.send(None)
        for frame, shown_s in zip(frames, seconds):
            for _ in range(round(shown_s * FPS)):
                writer.send(np.ascontiguousarray(frame))
        writer.close()
        return path.read_bytes()
