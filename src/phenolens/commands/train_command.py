"""The command train, apart from those that also draw, so that its help is quick."""

from pathlib import Path

from tyro.conf import Positional

from phenolens.commands.paths import AnyPath
from phenolens.core.keywords import keyword_settings
from phenolens.core.progress import tell
from phenolens.study import Study
from phenolens.training.config import TrainConfig


@keyword_settings
def train(study: Positional[AnyPath], *, name: str | None = None, training: TrainConfig = TrainConfig()) -> Path:
    """Train one model on the study's crops, or resume from its last checkpoint.

    Args:
        study: The study, or its folder.
        name: Name of the run; default: the model and its seed, such as vaeplus-seed0.
        training: How it is trained: `model="vae", steps=5000, beta=0.5`.

    Returns:
        The folder of the run, which `phenolens.load` takes.

    Raises:
        InputError: A setting is out of range, or a run of that name was trained on other crops or with other settings.
        RunError: The loss is not finite; the last checkpoint is kept.
    """
    from phenolens import pipeline  # slow to import

    opened = Study.open(study)
    name = name or pipeline.run_name(training)
    pipeline.train(opened, training, name=name)
    tell(f"{name} is trained: {opened.run_folder(name)}")
    return opened.run_folder(name)
