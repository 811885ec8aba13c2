"""What goes wrong in training is said when it begins and when it has passed, and nothing is said of a healthy one."""

import pytest

from phenolens.training.health import LATEST, LONG, RECORDS, USUAL, Health

GUIDED = {"autoencoder.gamma_1": 1.0}  # a discriminator layer has its full weight


def history(*stretches: tuple[int, dict[str, float]]) -> list[dict[str, float]]:
    """Records every 10 steps: so many of each kind, one after another."""
    kinds = [kind for n, kind in stretches for _ in range(n)]
    return [{"step": 10 * (i + 1), **kind} for i, kind in enumerate(kinds)]


def told(records) -> list[tuple[int, str]]:
    """What is said over a whole run, with the step it is said at."""
    health = Health()
    return [(r["step"], said) for i, r in enumerate(records) for said in health.update(records[: i + 1])]


def accuracy(share: float, guided=GUIDED) -> dict[str, float]:
    return {"discriminator.accuracy": share, **guided}


def test_a_discriminator_that_wins_is_told_once_and_again_when_it_no_longer_does():
    said = told(history((60, accuracy(0.99)), (40, accuracy(0.8))))
    (began, first), (passed, last) = said
    assert "accuracy 99.0% from step 10 to 200" in first
    assert "--discriminator-learning-rate" in first
    assert "no longer" in last
    assert (began, passed) == (10 * RECORDS, 650)  # mean below 95 % after five of twenty records at 80 %


def test_a_discriminator_just_short_of_winning_is_nothing_to_tell():
    assert told(history((60, accuracy(0.979)))) == []


def test_a_discriminator_may_win_before_its_layers_guide_anything():
    assert told(history((200, accuracy(1.0, {"autoencoder.gamma_1": 0.0})))) == []


def test_a_verdict_near_its_threshold_is_not_told_over_and_over():
    wavering = [(5, accuracy(0.99)), (5, accuracy(0.965))] * 20
    assert len(told(history((RECORDS, accuracy(0.99)), *wavering))) == 1


def test_a_discriminator_that_guesses_is_told_and_one_just_better_is_not():
    (_, said), (_, passed) = told(history((30, accuracy(0.51)), (30, accuracy(0.9))))
    assert "accuracy 51.0%" in said
    assert passed.endswith("accuracy 56.9%")
    assert [said for _, said in told(history((60, accuracy(0.525))))] == []
    assert told(history((60, accuracy(0.5, {"autoencoder.gamma_1": 0.0})))) == []


def active(n: float) -> dict[str, float]:
    return {"autoencoder.active_features": n, "autoencoder.kl": n}


def test_collapsed_features_are_told_with_how_many_there_were():
    (_, said), (_, passed) = told(history((30, active(256)), (40, active(2)), (40, active(60))))
    assert said.startswith("the embedding has collapsed:")
    assert "256 did at step 10; try a lower --beta" in said
    assert passed.startswith("the embedding has recovered")
    assert told(history((30, active(256)), (100, active(11)))) == []


def test_a_small_embedding_in_use_has_not_collapsed_and_an_ae_never_has():
    assert told(history((100, active(2)))) == []
    assert told(history((30, active(4)), (60, active(1))))[0][1].startswith("the embedding has collapsed")
    assert told(history((100, {"autoencoder.pixel": 50.0}))) == []


def terms(norm: float, *, pixel: float = 100.0, gamma_4: float = 0.0, layer_4: float = 3000.0) -> dict[str, float]:
    return {
        "autoencoder.gradient_norm": norm,
        "autoencoder.pixel": pixel,
        "autoencoder.kl": 60.0,
        "autoencoder.gamma_4": gamma_4,
        "autoencoder.feature_4": layer_4,
        "discriminator.accuracy": 0.8,
    }


def test_a_gradient_that_explodes_when_a_layer_joins_names_the_layer():
    """The numbers of a compressed schedule: from 5,800 to 44,000 when layer 4 came on, and the error from 87 to 266."""
    records = history((100, terms(5800, pixel=87)), (60, terms(44_000, pixel=266, gamma_4=0.8)))
    step, said = told(records)[0]
    assert step == 10 * (100 + LATEST // 2 + 1)
    assert "grown to 7.6 times its usual level (44,000, usually 5,800)" in said
    assert "gamma_4 L_4, the discriminator's layer 4 (by 2,400)" in said
    assert "--clip-norm" in said


def test_a_gradient_that_grows_because_a_layer_joins_is_no_alarm_while_reconstructions_keep_up():
    assert told(history((100, terms(250)), (100, terms(2500, pixel=140, gamma_4=0.4)))) == []


def test_a_gradient_that_explodes_by_itself_is_told_and_one_that_grows_less_is_not():
    (began, said), (passed, last) = told(history((50, terms(300)), (30, terms(1600)), (10, terms(400))))
    assert (began, passed) == (530, 830)
    assert "the gradient of the autoencoder has grown to 5.3 times" in said
    assert last.endswith("again (400)")
    assert told(history((50, terms(300)), (30, terms(1400)))) == []


def test_a_single_wild_batch_is_no_alarm():
    assert told(history((50, terms(300)), (2, terms(30_000, pixel=5000)), (50, terms(300)))) == []


def test_a_reconstruction_error_that_explodes_is_told_with_what_grew_beside_it():
    grown = terms(300, pixel=600) | {"autoencoder.kl": 900.0}
    said = [said for _, said in told(history((50, terms(300)), (10, grown)))]
    assert len(said) == 1
    assert "grown to 6.0 times its usual level (600, usually 100)" in said[0]
    assert "the KL (by 840)" in said[0]
    assert told(history((50, terms(300)), (10, terms(300, pixel=480)))) == []


def test_reconstructions_that_stay_worse_for_long_are_told_and_a_dent_is_not():
    slowly = [(1, {"autoencoder.pixel": 90 + i}) for i in range(61)]
    (step, said), (_, passed) = told(
        history(
            (30, {"autoencoder.pixel": 90.0}),
            *slowly,
            (100, {"autoencoder.pixel": 150.0}),
            (30, {"autoencoder.pixel": 95.0}),
        )
    )
    assert f"for {LONG} records: mean 150" in said
    assert "minimum 90 (step 200)" in said
    assert "again" in passed
    assert step > 10 * (30 + LONG)
    dent = (LONG - 5, {"autoencoder.pixel": 150.0})
    assert told(history((150, {"autoencoder.pixel": 90.0}), dent, (100, {"autoencoder.pixel": 90.0}))) == []
    assert told(history((150, {"autoencoder.pixel": 90.0}), (300, {"autoencoder.pixel": 130.0}))) == []


def test_nothing_is_said_of_a_healthy_early_training():
    """The course of a VAE+ of 8 maps on the demo's screen: error and KL fall, the discriminator learns at once."""
    learning = [
        {
            "autoencoder.pixel": 190 + 360 * 0.98**i,
            "autoencoder.kl": 60 + 150 * 0.99**i,
            "autoencoder.active_features": max(100.0, 256 - i),
            "autoencoder.gradient_norm": 250 + 530 * 0.97**i,
            "autoencoder.gamma_1": 0.0,
            "discriminator.accuracy": 1 - 0.4 * 0.5**i,
        }
        for i in range(250)
    ]
    assert told(history(*((1, record) for record in learning))) == []


def test_the_health_of_a_run_that_went_on_is_that_of_the_unbroken_run():
    records = history((100, terms(300)), (30, terms(1600)), (USUAL, terms(400)), (30, terms(4000)))
    live = Health()
    for i in range(len(records)):
        live.update(records[: i + 1])
    assert len(live.episodes) == 2
    assert Health.from_history(records) == live
    assert [sentence.split(":")[0] for sentence in live.current] == [f"since step {live.episodes[1].began}"]
    assert live.as_json()["episodes"][0]["passed"] == live.episodes[0].passed


@pytest.mark.parametrize("n", [1, RECORDS - 1])
def test_too_few_records_are_not_judged(n):
    assert told(history((n, accuracy(1.0)))) == []
