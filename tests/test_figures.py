"""Figures: what is drawn is what was given, in the same contrast, with n in the caption."""

import io
import re

import matplotlib
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.image import imread

from phenolens.core.colours import Contrast, cell_image, channel_colours, colour_names, shared_contrast
from phenolens.core.errors import InputError
from phenolens.plotting.cell_images import contact_sheet, reconstructions
from phenolens.plotting.charts import learning_curves, treatment_map, well_map
from phenolens.plotting.confusion_matrix import confusion_matrix
from phenolens.plotting.style import caption_of, file_of, png

CHANNELS = ("DAPI", "actin", "tubulin")


@pytest.fixture
def crops(rng):
    return rng.uniform(size=(5, 3, 12, 12))


def plain(channels: tuple[str, ...]) -> Contrast:
    n = len(channels)
    return Contrast(channels, channel_colours(channels), np.zeros(n), np.ones(n))


def pictures(figure) -> list[np.ndarray]:
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]


def texts(figure) -> str:
    figure.draw_without_rendering()
    return "\n".join(text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_visible())


@pytest.mark.parametrize("order", [("DAPI", "actin", "tubulin"), ("Tubulin", "DNA", "Actin"), ("tubulin", "hoechst")])
def test_dna_is_red_tubulin_green_and_actin_blue_in_whatever_order_the_channels_come(order):
    colours = dict(zip((name.lower() for name in order), channel_colours(order).tolist()))
    expected = {"dapi": [1, 0, 0], "dna": [1, 0, 0], "hoechst": [1, 0, 0], "tubulin": [0, 1, 0], "actin": [0, 0, 1]}
    assert colours == {name: expected[name] for name in colours}


@pytest.mark.parametrize("n", range(1, 9))
def test_at_most_three_channels_have_colours_and_these_differ(n):
    colours = channel_colours([f"stain {i}" for i in range(n)])
    assert colours.shape == (n, 3)
    assert len({tuple(colour) for colour in colours[:3]}) == min(n, 3)
    assert not colours[3:].any()


def test_channels_without_a_colour_are_named_and_get_one_when_they_are_chosen():
    names = ("DNA", "ER", "RNA", "AGP", "Mito")
    contrast = plain(names)
    assert "AGP, Mito" in colour_names(contrast)
    chosen = contrast.showing(["Mito", "DNA"])
    assert chosen.colours.any(axis=1).tolist() == [True, False, False, False, True]
    assert colour_names(chosen).startswith("DNA magenta, Mito green")
    assert (contrast.showing(["DNA", "RNA"]).colours[[0, 2]] == contrast.colours[[0, 2]]).all()
    assert colour_names(plain(names[:3])) == "DNA red, ER green, RNA blue"


def test_five_channels_at_full_brightness_are_shown_alone_too(rng):
    names = ("DNA", "ER", "RNA", "AGP", "Mito")
    crops = rng.uniform(size=(3, 5, 12, 12))
    figure = reconstructions(crops, {"VAE": crops}, ["a", "b", "c"], channels=names)
    assert len(pictures(figure)) == 3 * 2 * (1 + len(names))
    figure = reconstructions(crops[:, :3], {"VAE": crops[:, :3]}, ["a", "b", "c"], channels=names[:3])
    assert len(pictures(figure)) == 3 * 2


def test_one_channel_is_grey_and_two_add_up_to_white():
    np.testing.assert_array_equal(channel_colours(["ER"]), [[1, 1, 1]])
    np.testing.assert_array_equal(channel_colours(["ER", "RNA"]).sum(axis=0), [1, 1, 1])


def test_two_kinds_of_actin_do_not_share_a_colour():
    assert len({tuple(colour) for colour in channel_colours(["F-actin", "G-actin", "DNA"])}) == 3


def test_a_pixel_takes_the_colours_of_its_channels_added_up():
    crop = np.zeros((3, 2, 2))
    crop[0, 0, 0] = crop[2, 0, 1] = 1  # DAPI alone; tubulin alone
    crop[:, 1, 0] = 1, 0.5, 0  # DAPI and half the actin
    np.testing.assert_allclose(
        cell_image(crop, plain(CHANNELS)), [[[1, 0, 0], [0, 1, 0]], [[1, 0, 0.5], [0, 0, 0]]], atol=1e-12
    )


def test_values_beyond_the_contrast_are_clipped_and_those_within_stretched():
    contrast = Contrast(("ER",), np.ones((1, 3)), np.array([0.2]), np.array([0.7]))
    picture = cell_image(np.array([[[-3.0, 0.2], [0.45, 9.0]]]), contrast)
    np.testing.assert_allclose(picture[..., 0], [[0, 0], [0.5, 1]], atol=1e-12)


def test_a_channel_below_black_does_not_darken_the_others():
    names = ("a", "b", "c", "d")
    crop = np.array([-3.0, 0.5, 0.0, 0.0])[:, None, None]
    np.testing.assert_allclose(cell_image(crop, plain(names))[0, 0], 0.5 * channel_colours(names)[1])


def test_the_contrast_comes_from_the_originals_percentiles():
    ramp = np.linspace(0, 1, 2500).reshape(1, 1, 50, 50)
    contrast = shared_contrast(ramp, ["ER"])
    np.testing.assert_allclose([contrast.black, contrast.white], [[0.02], [0.995]], atol=1e-12)


def test_an_empty_channel_is_black_and_makes_no_warning(crops):
    crops[:, 1] = 0
    picture = cell_image(crops[0], shared_contrast(crops, CHANNELS))
    np.testing.assert_array_equal(picture[..., 2], 0)


@pytest.mark.parametrize("bad", [np.zeros((0, 3, 4, 4)), np.zeros((2, 2, 4, 4)), np.full((1, 3, 4, 4), np.nan)])
def test_invalid_crops_are_refused(bad):
    with pytest.raises(InputError, match="crops:"):
        shared_contrast(bad, CHANNELS)


def test_reconstructions_lie_under_their_originals_in_the_same_contrast(crops):
    figure = reconstructions(crops, {"VAE+": crops * 0.5, "AE": crops + 3}, list("abcde"), channels=CHANNELS)
    contrast = shared_contrast(crops, CHANNELS)
    expected = [cell_image(crop, contrast) for row in (crops, crops * 0.5, crops + 3) for crop in row]
    np.testing.assert_array_equal(pictures(figure), expected)
    assert [axes.get_title() for axes in figure.axes[:5]] == list("abcde")
    assert [figure.axes[i].get_ylabel() for i in (0, 5, 10)] == ["original", "VAE+", "AE"]
    assert "n = 5 cells" in caption_of(figure)
    assert "DAPI red, actin blue, tubulin green" in caption_of(figure)


def test_channels_apart_are_grey_and_each_channels_own(crops):
    figure = reconstructions(crops, {"VAE+": crops**2}, list("abcde"), channels=CHANNELS, apart=True)
    contrast = shared_contrast(crops, CHANNELS)
    shown = np.array(pictures(figure)).reshape(4, 2, 5, 12, 12, 3)  # together and 3 channels; original and VAE+
    for channel in range(3):
        value = (crops[:, channel] ** 2 - contrast.black[channel]) / (contrast.white - contrast.black)[channel]
        for rgb in range(3):
            np.testing.assert_allclose(shown[1 + channel, 1, ..., rgb], np.clip(value, 0, 1), atol=1e-12)


def test_reconstructions_of_other_cells_are_refused(crops):
    with pytest.raises(InputError, match="VAE: shape"):
        reconstructions(crops, {"VAE": crops[:4]}, list("abcde"), channels=CHANNELS)
    with pytest.raises(InputError, match="4 labels for 5 cells"):
        reconstructions(crops, {"VAE": crops}, list("abcd"), channels=CHANNELS)


def test_a_given_contrast_makes_figures_comparable(crops):
    contrast = plain(CHANNELS)
    figure = contact_sheet([crops[:2], crops[2:]], ["a", "b"], channels=CHANNELS, contrast=contrast)
    np.testing.assert_array_equal(pictures(figure), [cell_image(crop, contrast) for crop in crops])


def test_a_sheet_has_a_titled_row_a_group_and_leaves_missing_cells_blank(crops):
    figure = contact_sheet([crops[:3], crops[3:]], ["DMSO", "Actin disruptors"], channels=CHANNELS)
    assert len(figure.axes) == 6
    assert [len(axes.images) for axes in figure.axes] == [1, 1, 1, 1, 1, 0]
    assert [figure.axes[i].get_ylabel() for i in (0, 3)] == ["DMSO", "Actin disruptors"]
    assert "n = 5 real cells" in caption_of(figure)


def test_a_sheet_needs_a_title_for_each_group(crops):
    with pytest.raises(InputError, match="1 groups of cells, 2 titles"):
        contact_sheet([crops], ["a", "b"], channels=CHANNELS)


def history(n: int) -> pd.DataFrame:
    step = np.arange(1, n + 1) * 10
    return pd.DataFrame(
        {
            "step": step,
            "autoencoder.pixel": 1000.0 / step,
            "autoencoder.feature_1": np.where(step > 50, 7.0, np.nan),
            "autoencoder.feature_2": np.full(n, np.nan),
            "discriminator.accuracy": np.linspace(0.5, 0.9, n),
            "gamma_1": np.clip(step / 50 - 1, 0, 1),
            "seconds": step * 0.1,
        }
    )


def test_learning_curves_draw_the_records_at_their_steps():
    records = history(12)
    figure = learning_curves(records)
    by_title = {axes.get_title("left"): axes for axes in figure.axes}
    pixel = by_title["Reconstruction error"].lines[0]
    np.testing.assert_array_equal(pixel.get_xdata(), records["step"])
    np.testing.assert_allclose(pixel.get_ydata(), records["autoencoder.pixel"])
    layers = by_title["Feature-reconstruction error"].lines
    assert len(layers) == 1  # layer 2 was never used
    np.testing.assert_array_equal(layers[0].get_ydata(), np.full(7, 7.0))
    assert "n = 12 records up to step 120" in caption_of(figure)


def test_absent_quantities_have_no_panel_and_falling_errors_a_log_scale():
    titles = {axes.get_title("left"): axes.get_yscale() for axes in learning_curves(history(12)).axes}
    assert titles == {
        "Reconstruction error": "log",
        "Feature-reconstruction error": "linear",
        "Feature weights (γ)": "linear",
        "Discriminator accuracy": "linear",
    }


def test_terms_of_other_models_get_panels_of_their_own():
    records = history(5).assign(**{"critic.penalty": 2.0})
    assert "critic.penalty" in [axes.get_title("left") for axes in learning_curves(records).axes]


def test_long_histories_show_records_and_their_running_mean_but_schedules_as_they_are():
    records = history(200)
    by_title = {axes.get_title("left"): axes for axes in learning_curves(records).axes}
    pale, dark = by_title["Reconstruction error"].lines
    np.testing.assert_array_equal(pale.get_ydata(), records["autoencoder.pixel"])
    np.testing.assert_allclose(dark.get_ydata()[100], records["autoencoder.pixel"][98:102].mean())
    (gamma,) = by_title["Feature weights (γ)"].lines
    np.testing.assert_array_equal(gamma.get_ydata(), records["gamma_1"])


@pytest.mark.parametrize(
    "bad", [pd.DataFrame({"step": []}), pd.DataFrame({"loss": [1.0]}), pd.DataFrame({"step": [1]})]
)
def test_a_history_without_records_is_refused(bad):
    with pytest.raises(InputError, match="history:"):
        learning_curves(bad)


def test_the_confusion_matrix_shows_its_counts_where_they_are():
    mechanisms = ["Actin disruptors", "DNA damage", "Eg5 inhibitors"]
    matrix = pd.DataFrame([[4, 1, 0], [0, 8, 5], [0, 0, 6]], index=mechanisms, columns=mechanisms)
    figure = confusion_matrix(matrix, "VAE+, NSC")
    (axes,) = figure.axes
    shown = {(int(text.get_position()[1]), int(text.get_position()[0])): text.get_text() for text in axes.texts}
    assert shown == {(0, 0): "4", (0, 1): "1", (1, 1): "8", (1, 2): "5", (2, 2): "6"}
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "Actin disruptors  (5)",
        "DNA damage  (13)",
        "Eg5 inhibitors  (6)",
    ]
    assert [label.get_text() for label in axes.get_xticklabels()] == mechanisms
    assert "n = 24 treatments, 18 of them right" in caption_of(figure)


def test_the_caption_of_a_confusion_matrix_has_its_accuracy():
    names = ["a", "b"]
    matrix = pd.DataFrame([[3, 1], [0, 4]], index=names, columns=names)
    figure = confusion_matrix(matrix, "t.csv: wells", what="wells", how="Accuracy: 87.5 % (by chance 40.0 %).")
    assert "7 of them right (blue)" in caption_of(figure)
    assert "7 of them right (blue, 87.5 %)" in caption_of(confusion_matrix(matrix, "t.csv: wells", what="wells"))
    assert "Accuracy: 87.5 % (by chance 40.0 %). Not counted" in caption_of(figure)


def test_a_long_title_of_a_confusion_figure_is_broken_and_stays_in_the_figure():
    matrix = pd.DataFrame([[1]], index=["a"], columns=["a"])
    figure = confusion_matrix(matrix, "a_long_name_of_a_table.csv: treatments by their nearest neighbour (NSCB)")
    figure.draw_without_rendering()
    (title,) = [text for text in figure.texts if text.get_text() == figure.get_suptitle()]
    assert title.get_window_extent().x1 <= figure.bbox.x1


def test_right_is_blue_and_wrong_is_orange_by_the_share_of_the_row():
    matrix = pd.DataFrame([[3, 1], [0, 2]], index=["a", "b"], columns=["a", "b"])
    picture = np.asarray(confusion_matrix(matrix, "").axes[0].images[0].get_array())
    blue, orange = np.array([0x2F, 0x6F, 0xB0]) / 255, np.array([0xD9, 0x82, 0x2B]) / 255
    np.testing.assert_allclose(picture[1, 1], blue)
    np.testing.assert_allclose(picture[1, 0], [1, 1, 1])
    np.testing.assert_allclose(picture[0, 0], 1 - 0.75 * (1 - blue))
    np.testing.assert_allclose(picture[0, 1], 1 - 0.25 * (1 - orange))


def test_the_diagonal_is_found_by_name_when_a_predicted_mechanism_is_missing():
    matrix = pd.DataFrame([[2], [3]], index=["a", "b"], columns=["b"])
    assert "n = 5 treatments, 3 of them right" in caption_of(confusion_matrix(matrix, ""))


def test_of_many_mechanisms_the_largest_have_a_row_and_the_others_share_a_column():
    names = [f"m{number:03d}" for number in range(160)]
    counts = 2 * np.eye(160, dtype=int)
    counts[3, [3, 159]] = [9, 4]  # the largest, with four wrong ones of a mechanism without a row
    figure = confusion_matrix(pd.DataFrame(counts, index=names, columns=names), "")
    texts = {text.get_text() for text in figure.axes[0].texts}
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert (len(labels), labels[-1], "m003" in labels, "m159" in labels) == (31, "another mechanism", True, False)
    assert texts == {"2", "9", "4"}
    assert "n = 331 treatments, 327 of them right" in caption_of(figure)
    assert "130" in caption_of(figure)
    assert figure.get_figheight() * figure.get_figwidth() < 400  # inches squared


def test_the_map_of_wells_marks_controls_and_names_at_most_thirty_compounds():
    rng = np.random.default_rng(0)
    compounds = ["DMSO"] * 4 + [f"c{number}" for number in range(40)] * 2
    obs = pd.DataFrame({"Metadata_Compound": compounds, "Metadata_Role": ["control"] * 4 + ["treated"] * 80})
    figure = well_map(AnnData(rng.normal(size=(84, 6)), obs=obs.set_index(obs.index.astype(str))))
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts[:2] == ["DMSO (4)", "10 others (20)"]
    assert len(texts) == 32
    with pytest.raises(InputError, match="at least 3 rows"):
        well_map(AnnData(rng.normal(size=(2, 6)), obs=obs.iloc[[0, 4]].set_index(np.array(["a", "b"]))))


def test_negative_counts_are_refused():
    with pytest.raises(InputError, match="counts of at least 0"):
        confusion_matrix(pd.DataFrame([[-1.0]]), "")


def test_the_map_shows_each_treatment_at_its_principal_components(rng):
    profiles = np.zeros((6, 4))
    profiles[:, 2] = [-5, -3, -1, 1, 3, 5]
    profiles[:, 0] = [0.5, -1, 0.5, 0.5, -1, 0.5]
    moa = pd.DataFrame({"Metadata_MoA": [*"aabbcc", "", None]}, index=list("01234567"))
    unlabelled = np.full((2, 4), 1000.0)
    figure = treatment_map(AnnData(np.concatenate([profiles + 100, unlabelled]), obs=moa))
    points = np.concatenate([dots.get_offsets() for dots in figure.axes[0].collections])
    np.testing.assert_allclose(np.abs(points), np.abs(profiles[:, [2, 0]]), atol=1e-9)
    assert "n = 6 treatments, 3 mechanisms" in caption_of(figure)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a (2)", "b (2)", "c (2)"]


def test_a_figure_gives_the_same_bytes_each_time_whatever_the_users_own_settings(crops):
    def drawn() -> bytes:
        return png(reconstructions(crops, {"AE": crops}, list("abcde"), channels=CHANNELS))

    first = drawn()
    with matplotlib.rc_context({"font.size": 30, "axes.titlepad": 40, "savefig.dpi": 20}):
        assert drawn() == first
    figure = reconstructions(crops, {"AE": crops}, list("abcde"), channels=CHANNELS)
    png(figure, with_caption=False)
    assert png(figure) == first


def test_without_its_caption_a_figure_is_lower_and_keeps_its_caption_for_the_page(crops):
    figure = contact_sheet([crops], ["a"], channels=CHANNELS)
    with_caption, without = (imread(io.BytesIO(png(figure, with_caption=shown))) for shown in (True, False))
    assert without.shape[0] < with_caption.shape[0]
    assert without.shape[1] == with_caption.shape[1]
    assert caption_of(figure).startswith("n = 5 real cells")


def test_a_dollar_sign_in_a_name_is_drawn_as_it_is(crops):
    figure = reconstructions(crops, {"AE": crops}, ["$x^2$", "$\\frac$", "a_b", "\\frac", "{"], channels=CHANNELS)
    assert "$x^2$" in texts(figure)
    assert len(png(figure)) > 1000


@pytest.mark.parametrize(("kind", "begins"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_a_figure_is_the_same_bytes_in_each_kind_of_file_whenever_it_is_written(crops, kind, begins):
    figure = contact_sheet([crops], ["a µM & <b>"], channels=CHANNELS)
    first = file_of(figure, kind)
    assert first.startswith(begins)
    assert file_of(figure, kind) == first
    assert file_of(contact_sheet([crops], ["a µM & <b>"], channels=CHANNELS), kind) == first
    assert not re.search(rb"20\d\d-\d\d|CreationDate|Matplotlib v", first)
