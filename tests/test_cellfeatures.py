"""Cell features by cp_measure: values of drawn cells, the same in a mosaic as alone, and what is left out."""

import numpy as np
import pytest
import torch
from cp_measure.featurizer import featurize, make_featurizer_config
from scipy import ndimage

from phenolens import cli
from phenolens.core.errors import InputError
from phenolens.models import MODELS, cellfeatures, model_config
from phenolens.models.cellfeatures import FAMILIES, mosaic
from phenolens.morphology.segment import outlines

SIDE = 68
ROW, COLUMN = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
CHANNELS = ("actin", "DNA")
OF_A_CALL = ("sizeshape", "zernike", "intensity", "texture", "correlation_pearson")


def counts(n: int, channels: int = 2, seed: int = 0) -> torch.Tensor:
    """Crops (n, C, S, S) of an elliptic nucleus of random size in a body of texture; the nucleus in channel 1."""
    random = np.random.default_rng(seed)
    drawn = []
    for _ in range(n):
        axes = random.uniform(8, 14, 2)
        nucleus = np.hypot(ROW / axes[0], COLUMN / axes[1]) <= 1
        body = (np.hypot(ROW / (axes[1] + 12), COLUMN / (axes[0] + 12)) <= 1) * random.uniform(0.5, 1, ROW.shape)
        shown = np.stack([nucleus if channel == 1 else body for channel in range(channels)])
        drawn.append(300 + 6000 * random.uniform(0.5, 1) * ndimage.gaussian_filter(shown.astype(float), (0, 0.7, 0.7)))
    return torch.from_numpy(np.rint(drawn)).float()


def built(channels: tuple[str, ...] = CHANNELS, **settings):
    model = MODELS["cellfeatures"].build(len(channels), SIDE, model_config("cellfeatures", settings))
    model.take_channels(channels)
    return model.eval()


def fitted(x: torch.Tensor, channels: tuple[str, ...] = CHANNELS, **settings):
    model = built(channels, **settings)
    model.fit(x)
    return model


def test_a_drawn_cell_has_its_area_its_intensity_and_the_names_of_its_channels():
    x = counts(12)
    model = fitted(x)
    z = dict(zip(model.feature_names(), model.embed(x).T.numpy()))
    peak = (x / x.amax((2, 3), keepdim=True)).numpy()
    found = outlines(peak[:, 1], peak[:, :1])
    np.testing.assert_allclose(z["Nuclei_Area"], found.nucleus.sum((1, 2)))
    np.testing.assert_allclose(z["Cytoplasm_Area"], (found.body & ~found.nucleus).sum((1, 2)))
    scaled = (x[:, 0].double() / model.scale[0]).clip(0, 1).numpy()
    means = [image[mask].mean() for image, mask in zip(scaled, found.body)]
    np.testing.assert_allclose(z["Cells_Intensity_MeanIntensity_actin"], means, rtol=1e-5)


def test_a_crop_in_a_mosaic_has_the_values_of_a_call_of_the_library_with_that_crop_alone():
    x = counts(23)
    model = built()
    tiled = model._features(x)
    config = make_featurizer_config(
        list(CHANNELS), objects=model.objects, **{name: name in OF_A_CALL for name in FAMILIES}
    )
    compared = 0
    for i in range(0, 23, 4):
        peak = (x[i : i + 1] / x[i : i + 1].amax((2, 3), keepdim=True)).numpy()
        found = outlines(peak[:, 1], peak[:, :1])
        masks = np.stack([found.nucleus, found.body, found.body & ~found.nucleus], axis=1).astype(np.int32)
        numbers, columns, _ = featurize(x[i : i + 1].double().numpy() / 65535, masks, config)
        ours = dict(zip(model.columns, tiled[i].reshape(3, -1).T))
        for name, theirs in zip(columns, numbers.T):
            if not cellfeatures.OF_PLACE.match(name):
                np.testing.assert_allclose(ours[name], theirs, rtol=1e-6, atol=1e-9, err_msg=name)
                compared += 1
    assert compared > 6 * 150


def test_tiles_do_not_touch_and_keep_their_order():
    crops = np.arange(1, 13)[:, None, None, None] * np.ones((12, 2, 3, 3))
    picture = mosaic(crops)
    assert picture.shape == (2, 2 * 7 + 4, 10 * 7 + 4)
    np.testing.assert_array_equal(picture[0, 4:7, 4:7], 1)
    np.testing.assert_array_equal(picture[1, 11:14, 11:14], 12)
    _, n = ndimage.label(picture[0])
    assert n == 12


def test_features_do_not_depend_on_the_batch_and_on_brightness_as_the_scale_says():
    x = counts(12)
    model = fitted(x)
    z = model.embed(x)
    torch.testing.assert_close(z[3:7], model.embed(x[3:7]), rtol=1e-6, atol=1e-9)
    assert torch.isfinite(z).all()
    assert z.shape == (12, len(model.feature_names()))
    assert model.scale.tolist() == pytest.approx(np.quantile(x.amax((2, 3)).numpy(), 0.999, axis=0), rel=1e-4)
    darker = dict(zip(model.feature_names(), (model.embed(x / 2) / z).T))
    torch.testing.assert_close(darker["Nuclei_Intensity_MeanIntensity_DNA"], torch.full((12,), 0.5), rtol=0.01, atol=0)
    assert darker["Nuclei_Area"].tolist() == [1] * 12


def test_places_and_constant_and_undefined_features_are_left_out():
    names = fitted(counts(12)).feature_names()
    assert not [name for name in names if any(word in name for word in ("Location", "Center_", "Orientation", "Euler"))]
    assert not {"Nuclei_NormalizedMoment_0_0", "Cells_NormalizedMoment_0_1"} & {*names}
    assert {"Cells_Correlation_Pearson_actin_DNA", "Nuclei_Zernike_8_4"} <= {*names}
    assert any("Contrast_3_00" in name for name in names)
    assert not any("RadialDistribution" in name for name in names)
    radial = fitted(counts(12), radial=True).feature_names()
    assert {*names} < {*radial}
    assert any("RadialDistribution" in name for name in radial)


@pytest.mark.parametrize(
    ("channels", "settings", "objects"),
    [
        (("actin", "DNA"), {}, {"Nuclei", "Cells", "Cytoplasm"}),
        (("actin", "red"), {"nuclei": "red"}, {"Nuclei", "Cells", "Cytoplasm"}),
        (("actin", "red"), {}, {"Cells"}),
        (("DNA",), {}, {"Nuclei"}),
        (("actin",), {}, {"Cells"}),
        (("a", "Hoechst", "c", "d", "e"), {}, {"Nuclei", "Cells", "Cytoplasm"}),
    ],
)
def test_the_objects_are_those_that_the_channels_show(channels, settings, objects, capsys):
    x = counts(6, len(channels)) if channels != ("DNA",) else counts(6)[:, 1:]
    model = fitted(x, channels, **settings)
    assert {name.split("_")[0] for name in model.feature_names()} == objects
    assert torch.isfinite(model.embed(x)).all()
    assert ("--nuclei" in capsys.readouterr().err) == (objects == {"Cells"})


def test_a_cell_without_a_nucleus_has_the_median_of_the_others_there():
    x = counts(12)
    model = fitted(x)
    x[3, 1] = 300
    z = dict(zip(model.feature_names(), model.embed(x).T))
    assert z["Nuclei_Area"][3] == model.fill[model.names.index("Nuclei_Area")]
    assert z["Cells_Area"][3] > 0


def test_a_channel_that_is_not_there_and_empty_crops_are_refused_by_name():
    with pytest.raises(InputError, match=r'--nuclei "red".*actin, DNA'):
        built(nuclei="red")
    with pytest.raises(InputError, match="cellfeatures"):
        fitted(torch.zeros(5, 2, SIDE, SIDE))


@pytest.mark.slow
def test_a_study_is_fitted_and_embedded_with_the_names_of_its_channels(tiny_study):
    folder = str(tiny_study.folder)
    assert cli.main(["train", folder, "--model", "cellfeatures", "--threads", "1"]) == 0
    assert cli.main(["embed", folder, "--threads", "1"]) == 0
    z = tiny_study.embeddings("cellfeatures-seed0")
    assert len(z) == len(tiny_study.cells)
    assert np.isfinite(z.X).all()
    assert "Cells_Intensity_MeanIntensity_actin" in z.var_names
    assert cli.main(["train", folder, "--model", "cellfeatures", "--nuclei", "red", "--name", "red"]) == 2
    assert "red" not in tiny_study.runs
