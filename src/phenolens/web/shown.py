"""What every page with cells needs to show them: the channel, its colours in words, the pictures' addresses."""

from typing import Any

from phenolens.colours import colour_words
from phenolens.web.cells import Cells, known
from phenolens.web.pages import address


def pictures_of(cells: Cells, channel: str) -> dict[str, Any]:
    """The values of a page with pictures of one channel, or of all where it is empty; the channel is checked."""
    if channel:
        known(channel, cells.store.channels, what="channel")
    version = cells.store.identity[:12]
    return {
        "channel": channel,
        "channels": cells.store.channels,
        "colours": colour_words(cells.contrast),
        "side": cells.store.crop_px,
        "picture": lambda cell_id: address("cells", f"{cell_id}.png", channel=channel, v=version),
    }
