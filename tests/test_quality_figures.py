"""The figure of flagged crops draws the crops it was given, channel by channel, with their counts."""

import matplotlib
import numpy as np
import pytest

from phenolens.core.errors import InputError
from phenolens.plotting.quality_figures import flagged_crops
from phenolens.plotting.style import alt_of, caption_of, png

CHANNELS = ("DAPI", "actin", "tubulin")


@pytest.fixture
def crops(rng) -> np.ndarray:
    return rng.integers(0, 65_520, (9, 3, 20, 20)).astype(np.uint16)


def test_each_flag_has_a_row_of_its_crops_with_their_channels_in_order(crops):
    figure = flagged_crops(
        {"noise": crops[:2], "bright spot": crops[2:5]},
        {"noise": 55, "bright spot": 3},
        n_crops=1996,
        n_flagged=57,
        channels=CHANNELS,
    )
    drawn = [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]
    np.testing.assert_array_equal(drawn, crops[:5].reshape(15, 20, 20))
    shown = [axes.images[0].get_clim() for axes in figure.axes if axes.images]
    assert shown == [(image.min(), image.max()) for image in crops[:5].reshape(15, 20, 20)]
    labels = [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()]
    assert labels == ["noise\n55 of 1,996", "bright spot\n3 of 1,996"]
    assert caption_of(figure).startswith("n = 1,996 crops, 57 flagged;")
    assert "at most 3 of each" in caption_of(figure)
    assert alt_of(figure) == "Example crops of each kind of flag: noise (55 of 1,996), bright spot (3 of 1,996)"
    assert len(png(figure)) > 1000


def test_of_many_crops_the_first_six_are_drawn(crops):
    figure = flagged_crops({"noise": crops}, {"noise": 9}, n_crops=9, n_flagged=9, channels=CHANNELS)
    drawn = [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]
    np.testing.assert_array_equal(drawn, crops[:6].reshape(18, 20, 20))


def test_the_channels_are_named_above_the_first_crop(crops):
    figure = flagged_crops({"noise": crops[:1]}, {"noise": 1}, n_crops=9, n_flagged=1, channels=CHANNELS)
    figure.draw_without_rendering()
    words = {text.get_text() for text in figure.findobj(matplotlib.text.Text)}
    assert set(CHANNELS) <= words


def test_counts_that_do_not_fit_the_examples_are_refused(crops):
    with pytest.raises(InputError, match="noise: 9 examples, 3 crops with this flag"):
        flagged_crops({"noise": crops}, {"noise": 3}, n_crops=9, n_flagged=9, channels=CHANNELS)
    with pytest.raises(InputError, match="no flags"):
        flagged_crops({}, {}, n_crops=9, n_flagged=0, channels=CHANNELS)
