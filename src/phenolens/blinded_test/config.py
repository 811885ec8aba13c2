"""Settings of a blinded test."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from phenolens.core.bounds import Bounded, Bounds, Seed


@dataclass(frozen=True)
class AssessmentConfig(Bounded):
    """What a blinded test shows."""

    run: str | None = None  # whose reconstructions are shown; default: the first flow, else VAE+, VAE, else AE
    n: Annotated[int, Bounds(ge=1, le=1000)] = 50  # pictures of each kind, real and synthetic
    channels: tuple[str, ...] = ()  # shown in colour, a single one in grey; default: all
    seed: Seed = 0  # selects the cells
    show_score: bool = False  # whether assessors see at the end how many of their answers were correct
    each_channel: bool = False  # also show each channel alone, in grey, in as many pictures as all channels

    def views(self, channels: Sequence[str]) -> list[tuple[str, ...]]:
        """What a picture can show: these channels in colour and, with `each_channel`, one of them in grey."""
        return [tuple(channels), *((channel,) for channel in channels if self.each_channel)]
