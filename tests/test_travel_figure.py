"""Strips, populations and films: what is drawn of a trajectory whose numbers are known."""

import io
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from PIL import Image

from phenolens.core.errors import InputError
from phenolens.morphology.two_sample_test import NOT_TESTED, TwoSampleTest
from phenolens.plotting.style import alt_of, caption_of, png
from phenolens.travels.figure import FLAG, caption_sentences, populations, shared_sentences, travel_strip
from phenolens.travels.film import check_can_film, film, film_frames, frame_seconds
from phenolens.travels.measured_change import MeasuredChange, PopulationTest
from phenolens.travels.trajectory import FRAME_COLUMNS, BatchShare, Measured, Population, RealCell, Trajectory
from phenolens.travels.widget import travel_widget

CHANNELS = ("DNA", "tubulin")
UNTESTED = PopulationTest(0, NOT_TESTED, NOT_TESTED, "27 treated and 32 moved")
FAR = "1.2 times as far from the nearest cells of the screen as 99 % of these are"


def real_cell(name, brightness):
    return RealCell(name, "taxol@0.3", "taxol 0.3 µM", np.full((2, 8, 8), brightness))


@pytest.fixture
def trajectory():
    """Three frames; DNA gets brighter by 0.2 a frame, tubulin darker; the second frame leaves the data."""
    steps = np.arange(3)[:, None, None]
    pictures = np.stack([0.3 + 0.2 * steps + np.zeros((3, 8, 8)), 0.6 - 0.1 * steps + np.zeros((3, 8, 8))], axis=1)
    frames = pd.DataFrame(
        {
            "towards": "taxol@0.3",
            "n_copied": [0, 3, 8],
            "cosine": [-0.25, 0.5, 1.0],
            "distance": [12.34, 6.0, 0.0],
            "cosine_decoded": [-0.24, 0.31, 0.46],
            "cosine_treated": 0.83,
            "far": [0.4, 1.21, 0.7],
            "moved": [0.5, 0.6, 0.7],
            "flag": ["", FAR, ""],
            "nearest_cell": ["a", "b", "c"],
            "nearest_treatment": "taxol@0.3",
            "nearest_distance": [3.0, 4.0, 5.0],
        }
    )
    measured = Measured(
        frames=pd.DataFrame(
            {"nucleus_area_px": [700.0, 900, 1100], "DNA_sharpness": [1.0, 5, 9], "cell_area_px": 50.0}
        ),
        nearest=pd.DataFrame({"nucleus_area_px": [1.0, 2, 3], "DNA_sharpness": 1.0, "cell_area_px": np.nan}),
        ends=pd.DataFrame({"nucleus_area_px": [650.0, 1234], "DNA_sharpness": 2.0, "cell_area_px": np.nan}).set_axis(
            ["start", "target"]
        ),
        control_sd=pd.Series({"nucleus_area_px": 100.0, "DNA_sharpness": 0.1, "cell_area_px": 9.0}),
        crop_px=8,
    )
    return Trajectory(
        run="vaeplus-seed0",
        model="VAE+",
        way="swap",
        beyond=1.0,
        channels=CHANNELS,
        start=RealCell("s", "DMSO@0", "DMSO", np.full((2, 8, 8), 0.5)),
        target=real_cell("t", 0.9),
        population=Population(1, 1, 1.0, 27),
        stops=("taxol 0.3 µM",),
        n_controls=40,
        frames=frames,
        embeddings=np.zeros((3, 8)),
        pictures=pictures,
        nearest=(real_cell("a", 0.1), real_cell("b", 0.2), real_cell("c", 0.3)),
        measured=measured,
        change=None,
        batch_share=BatchShare(0.61, 0.02),
    )


def words_in(figure):
    return [text.get_text() for text in figure.findobj(Text)]


def test_the_fixture_has_the_columns_that_a_travel_gives(trajectory):
    assert list(trajectory.frames) == list(FRAME_COLUMNS)


def test_a_strip_writes_the_cosine_of_each_picture_and_what_moves_most_beside_the_real_cells_values(trajectory):
    words = words_in(travel_strip(trajectory, n_measures=1))
    for said in ("−0.24", "0.31", "0.46", "0.83", "700", "900", "1,100", "650", "1,234"):
        assert said in words
    (name,) = [line for line in words if line.startswith("nucleus area, px²")]
    assert "+4.0" in name  # (1100 - 700) / 100
    assert not [line for line in words if "sharpness" in line]  # it moved most, but tells of the drawing


@pytest.mark.parametrize("name", ["cell_eccentricity", "cell_solidity"])
def test_the_outline_of_a_cell_that_fills_its_crop_is_not_shown(trajectory, name):
    def shown(first_area_px, last_area_px):
        frames = trajectory.measured.frames.assign(
            cell_area_px=[first_area_px, 30, last_area_px], **{name: [0.0, 0.5, 0.9]}
        )
        sds = pd.concat([trajectory.measured.control_sd, pd.Series({name: 0.1})])
        return name in replace(trajectory.measured, frames=frames, control_sd=sds).most_moved(9)

    assert shown(57, 57)  # of 64 px²
    assert not shown(64, 30)
    assert not shown(30, 58)


def test_a_frame_that_leaves_the_data_is_marked_without_colour_and_counted_in_the_caption(trajectory):
    figure = travel_strip(trajectory)
    assert words_in(figure).count(FLAG) == 1
    assert f"1.21 {FLAG}" in words_in(figure)
    dashed = [patch for patch in figure.axes[0].patches if patch.get_linestyle() not in ("-", "solid")]
    assert len(dashed) == 1
    assert "1 of 3 frames is out of distribution (\u26a0), up to 1.21 times the limit" in caption_of(figure)
    assert "1 of 3 frames" in alt_of(figure)
    inside = replace(trajectory, frames=trajectory.frames.assign(flag="", far=0.5))
    assert FLAG not in " ".join(words_in(travel_strip(inside)))
    assert "distribution" not in caption_of(travel_strip(inside))


def test_cells_of_a_simulated_screen_are_called_simulated(trajectory):
    simulated = replace(trajectory, origin="simulated")
    shown = " ".join(words_in(travel_strip(simulated)))
    assert (shown.count("simulated") >= 4, "DMSO, real" in shown) == (True, False)
    changed = with_change(simulated, nucleus_area_px=(1.0, 1.0, 0.1))
    caption = caption_of(travel_strip(changed))
    assert ("simulated cells" in caption, "real" in caption.replace("(", " ").split()) == (True, False)


def test_a_strip_shows_every_cell_and_a_difference_map_a_channel(trajectory):
    images = travel_strip(trajectory).axes[0].images
    assert len(images) == 2 + 3 + 3 + 2 + 1  # ends, frames, nearest, channels, colour scale
    dna, tubulin = (image.get_array()[4, 4] for image in images[-3:-1])
    assert dna[0] > dna[2]  # brighter is orange
    assert tubulin[2] > tubulin[0]  # darker is purple


def test_the_caption_says_what_was_not_imaged_and_that_batches_are_most_of_the_direction(trajectory):
    caption = caption_of(travel_strip(trajectory))
    for said in ("Real cell of DMSO to taxol 0.3 µM (27 cells). ", "3 frames decoded by VAE+, none imaged",
                 "61 %", "batch effect"):  # fmt: skip
        assert said in caption
    little = replace(trajectory, batch_share=BatchShare(0.02, 0.01))
    assert ("batches" in caption_of(travel_strip(little)), "2 % of this" in alt_of(travel_strip(little))) == (
        False,
        True,
    )
    far = caption_of(travel_strip(replace(trajectory, way="direction", beyond=3.0)))
    assert "to 3 times its length" in far


def with_change(trajectory, test=UNTESTED, **changes):
    """With a change a measure: moved and real, each with its interval as half its width."""
    rows = {
        name: {"decoded": moved, "decoded_low": moved - half, "decoded_high": moved + half,
               "real": real, "real_low": real - half, "real_high": real + half, "agrees": moved * real > 0}
        for name, (moved, real, half) in changes.items()
    }  # fmt: skip
    table = pd.DataFrame(rows).T.astype(float).astype({"agrees": "boolean"})
    return replace(trajectory, change=MeasuredChange(table, 32, 27, 40, test))


def test_a_strip_ranks_measures_by_the_real_cells_and_shows_their_change_beside_the_moved_cells(trajectory):
    changed = with_change(
        trajectory,
        DNA_sharpness=(3.0, 4.0, 0.1),
        cell_area_px=(0.4, 1.5, 0.2),
        nucleus_area_px=(-0.9, 1.2, 0.2),
        cell_solidity=(2.0, 0.1, 0.5),
    )
    assert changed.shown_measures(3) == ["cell_area_px", "nucleus_area_px"]  # sharpness is not the cell's
    figure = travel_strip(changed, n_measures=1)
    (row,) = [line for line in words_in(figure) if "px²" in line]
    assert " ".join(row.split()).endswith("change +0.0 s.d., moved cells +0.4, real cells +1.5")
    caption = caption_of(figure)
    for named in ("Of the 2 largest", ", 1 have the same", "27 treated", "40 control", UNTESTED.reason):
        assert named in caption
    assert (
        "32 moved control cells; of all measures, contrary to real cells: nucleus area." in caption
    )  # beyond both intervals
    named_measures = (
        "cell area within the crop (real +1.5 s.d., moved +0.4)",
        "not nucleus area (real +1.2 s.d., moved −0.9)",
    )
    for named in ("1 of the 2 largest", *named_measures):
        assert named in alt_of(figure)


def test_a_flag_in_a_caption_is_not_broken_at_its_hyphen(trajectory):
    test = replace(UNTESTED, reason="x " * 40 + "--moved-cells " * 9)
    caption = caption_of(travel_strip(with_change(trajectory, test, nucleus_area_px=(1.0, 1.0, 0.1))))
    assert caption.count("--moved-cells") == 9


def test_a_strips_caption_is_short_however_much_was_measured(trajectory):
    changed = with_change(trajectory, **{name: (-0.9, 1.2, 0.2) for name in trajectory.measured.frames})
    assert len(caption_of(travel_strip(changed)).split()) < 125  # all that a caption can say
    assert "contrast" not in caption_of(travel_strip(changed))  # the same under each strip


def test_what_the_captions_of_several_strips_share_can_be_left_to_the_page(trajectory):
    one = with_change(trajectory, nucleus_area_px=(1.0, 1.0, 0.1))
    other = replace(one, stops=("nocodazole 1 µM",), frames=one.frames.assign(flag="", far=0.5))
    shared = shared_sentences([one, other])
    assert any(sentence.startswith("Untested") for sentence in shared)
    for each in (one, other):
        caption = caption_of(travel_strip(each, said=shared))
        assert [sentence for sentence in shared if sentence in caption] == []
        assert caption.split(". ")[0].endswith(f"{each.stops[-1]} (27 cells)")
        assert sorted([*caption.split(". "), *shared]) != sorted(shared)
        assert set(caption_sentences(each)) == set(shared) | {s for s in caption_sentences(each) if s in caption}
    assert shared_sentences([one]) == []


def test_where_real_cells_do_not_change_no_change_is_claimed(trajectory):
    quiet = with_change(trajectory, nucleus_area_px=(3.0, 0.1, 0.5))
    assert quiet.shown_measures(3) == []
    figure = travel_strip(quiet)
    assert "px²" not in " ".join(words_in(figure))
    assert "no change is confirmed" in caption_of(figure)


def test_the_classifier_that_separates_moved_from_real_cells_is_in_the_caption_beside_its_floor(trajectory):
    moved = TwoSampleTest(0.81, (0.7, 0.9), 0.88, (0.8, 0.95), 3)
    real = TwoSampleTest(0.52, (0.4, 0.6), 0.51, (0.4, 0.6), 3)
    tested = with_change(trajectory, PopulationTest(34, moved, real, ""), nucleus_area_px=(1.0, 1.0, 0.1))
    caption = caption_of(travel_strip(tested))
    for named in ("0.81 (0.70 to 0.90)", "0.52 (0.40 to 0.60)"):
        assert named in caption
    for named in ("34 moved cells", "0.81 (0.70 to 0.90), AUC 0.88", "0.52 (0.40 to 0.60), AUC 0.51"):
        assert named in alt_of(travel_strip(tested))


@pytest.mark.parametrize(
    ("kept", "words"), [("inversion", "The first frame is the real cell"), ("residual", "plus the decoded")]
)
def test_how_the_real_cell_is_kept_is_in_the_caption(trajectory, kept, words):
    assert words not in caption_of(travel_strip(trajectory))
    assert words in caption_of(travel_strip(replace(trajectory, kept=kept)))


def test_without_an_embedding_of_new_pictures_the_strip_says_so(trajectory):
    unknown = replace(trajectory, frames=trajectory.frames.assign(cosine_decoded=np.nan, moved=np.nan))
    figure = travel_strip(unknown)
    assert "embedded again" in caption_of(figure)
    shown = ["distance between the embedding" in " ".join(words_in(one)) for one in (travel_strip(trajectory), figure)]
    assert shown == [True, False]


def test_a_cosine_is_said_beside_the_first_frames_and_the_treated_cells_or_not_at_all(trajectory):
    said = "similarity to the target 0.46 (first frame −0.24, other treated cells 0.83)"
    assert (trajectory.nearness(2), said in alt_of(travel_strip(trajectory))) == (said, True)
    alone = replace(trajectory, frames=trajectory.frames.assign(cosine_treated=np.nan))
    assert alone.nearness(2) == "similarity to the target 0.46 (first frame −0.24)"
    unknown = replace(trajectory, frames=trajectory.frames.assign(cosine_decoded=np.nan))
    assert "cosine" not in unknown.nearness(2) + " ".join(words_in(travel_strip(unknown)))


def test_up_the_doses_each_frame_says_to_which_dose_it_leads(trajectory):
    frames = trajectory.frames.assign(towards=["taxol@0.1", "taxol@0.1", "taxol@0.3"])
    figure = travel_strip(replace(trajectory, frames=frames, stops=("taxol 0.1 µM", "taxol 0.3 µM")))
    assert words_in(figure).count("0.1 µM") == 2
    assert words_in(figure).count("0.3 µM") == 1
    assert "through taxol 0.1 µM" in caption_of(figure)


def test_a_strip_without_measures_or_batches_is_drawn_too(trajectory):
    figure = travel_strip(replace(trajectory, measured=None, change=None, batch_share=None))
    assert "batches" not in caption_of(figure)
    assert "px²" not in " ".join(words_in(figure))


def test_the_same_trajectory_gives_the_same_bytes(trajectory):
    assert png(travel_strip(trajectory)) == png(travel_strip(trajectory))
    assert film(trajectory, "gif") == film(trajectory, "gif")


def test_a_strip_needs_a_row_a_frame(trajectory):
    with pytest.raises(InputError, match="one row per frame"):
        travel_strip(replace(trajectory, frames=trajectory.frames.head(2)))


def test_populations_show_the_medoid_first_then_others_and_say_what_tells_them_apart(trajectory):
    def population(number, share, cells):
        marks = (("n_nuclear_fragments", 2.5, 1.0),)
        return replace(trajectory, target=cells[0], population=Population(number, 2, share, 27, tuple(cells), marks))

    both = [
        population(1, 0.7, [real_cell("a", 0.1), real_cell("b", 0.2), real_cell("c", 0.3)]),
        population(2, 0.3, [real_cell("d", 0.8), real_cell("e", 0.9)]),
    ]
    figure = populations(both)
    shown = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert len(shown) == 5
    words = " ".join(" ".join(words_in(figure)).split())
    assert "population 2 of 2, 30 % of 27 cells fragments of the nucleus 2.5, others 1" in words
    assert "n = 27 cells" in caption_of(figure)
    with pytest.raises(InputError, match="--targets medoids"):
        populations([trajectory])


def test_a_gif_has_a_frame_a_picture_rests_at_the_ends_and_says_where_it_is_from(trajectory):
    gif = Image.open(io.BytesIO(film(trajectory, "gif", comment="from here")))
    assert gif.n_frames == 3
    assert gif.info["comment"] == b"from here"
    assert gif.info["duration"] == 1000
    gif.seek(1)
    assert gif.info["duration"] == round(4000 / 3 / 10) * 10  # a GIF counts hundredths of a second


def test_a_films_pictures_differ_where_the_cell_is_and_keep_the_real_cells_still(trajectory):
    pictures = film_frames(trajectory)
    changed = (pictures[0] != pictures[2]).any(axis=2)
    width = changed.shape[1]
    at_side, in_middle = changed[60:300, : int(width * 0.27)], changed[60:300, int(width * 0.4) : int(width * 0.6)]
    assert not at_side.any()
    assert in_middle.mean() > 0.5


def test_no_word_of_a_film_is_cut_off_however_long_the_names_are(trajectory):
    long = "microtubule-destabilizers-1 0.01 µM"
    measured = trajectory.measured
    name = "a channel with a name that is long enough to be on its own in a line_fibres"
    frames = measured.frames.assign(**{name: [0.0, 5, 9]})
    sds = pd.concat([measured.control_sd, pd.Series({name: 0.01})])
    measured = replace(measured, frames=frames, ends=measured.ends.assign(**{name: 1.0}), control_sd=sds)
    population = replace(trajectory.population, number=2, of=3, share=0.29)
    for picture in film_frames(replace(trajectory, stops=(long,), population=population, measured=measured)):
        paper = picture[0, 0]
        assert (picture[:, :6] == paper).all()
        assert (picture[:, -6:] == paper).all()
        assert (picture[-14:-6] == paper).all()


def test_a_film_says_which_colour_is_which_channel(trajectory):
    foot = film_frames(trajectory)[:, -45:]
    swapped = film_frames(replace(trajectory, channels=("tubulin", "DNA")))[:, -45:]
    assert (foot != foot[0, 0, 0]).any()
    assert (foot != swapped).any()


def test_frames_are_short_where_there_are_many_but_never_too_short_to_see():
    assert frame_seconds(9)[1] == pytest.approx(4 / 9)
    assert frame_seconds(500)[1] == 0.08
    assert frame_seconds(2) == [1.0, 1.0]


def test_an_mp4_holds_the_film(trajectory, tmp_path):
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    content = film(trajectory, "mp4", comment="from here")
    assert content == film(trajectory, "mp4", comment="from here")
    assert b"from here" in content
    (tmp_path / "film.mp4").write_bytes(content)
    n_frames, seconds = imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "film.mp4"))
    assert n_frames == 25 + round(25 * 4 / 3) + 25
    assert seconds == pytest.approx(n_frames / 25, abs=0.05)


def test_without_the_extra_a_film_is_refused_with_its_install_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(InputError, match=r'pip install "phenolens\[film\]"'):
        check_can_film("mp4")
    check_can_film("gif")


def test_a_widget_shows_the_chosen_frame_and_channel(trajectory):
    pytest.importorskip("ipywidgets")
    controls, picture, numbers = travel_widget(trajectory).children
    frame, shown = controls.children

    def middle():
        image = np.asarray(Image.open(io.BytesIO(picture.value)).convert("RGB"), float)
        third = image.shape[1] // 3
        return image[:, third : 2 * third].mean((0, 1))

    assert (frame.min, frame.max) == (1, 3)
    assert list(shown.options)[1:] == list(CHANNELS)
    before = middle()
    frame.value = 2
    assert FLAG in numbers.value
    frame.value = 3
    shown.value = "DNA"
    assert "frame 3 of 3" in numbers.value
    assert np.count_nonzero(middle()) == 1
    assert middle().max() > before.max() > 0


def test_without_ipywidgets_the_extra_is_named(trajectory, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(InputError, match=r"phenolens\[notebook\]"):
        travel_widget(trajectory)
