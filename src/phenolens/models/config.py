"""The settings of every model: the flags of `phenolens train`, read without loading torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, ClassVar, Literal, get_type_hints

from phenolens.core.bounds import Bounds, check, flag
from phenolens.core.errors import InputError

Turns = Literal[1, 8]


def setting(default: Any, help: str, *, least: float | None = None, most: float | None = None) -> Any:
    """A field of a model's Config: its default, its sentence in `phenolens train --help`, and its range."""
    return field(default=default, metadata={"help": help, "bounds": Bounds(ge=least, le=most)})


@dataclass(frozen=True)
class Schedule:
    """How long a model is trained unless settings say otherwise; the defaults are those of Lafarge et al. 2019."""

    steps: int = 40_000
    batch_size: int | None = None  # cells; None: one of each treatment and one control
    cooldown_share: float = 0.0  # of the steps, over which learning rates fall to zero


@dataclass(frozen=True)
class ModelConfig:
    """The settings of one model, each a flag of `phenolens train`; every field is made by `setting`."""

    schedule: ClassVar[Schedule] = Schedule()
    untrained: ClassVar[Mapping[str, Any]] = {}  # settings of the same network untrained, where steps do not train it

    def __post_init__(self) -> None:
        """Validates the settings."""
        kinds = get_type_hints(type(self))
        for each in fields(self):
            check(flag(each.name), getattr(self, each.name), Annotated[kinds[each.name], each.metadata["bounds"]])

    @classmethod
    def names(cls) -> list[str]:
        """The names of the settings."""
        return [each.name for each in fields(cls)]


def latent_size(default: int) -> Any:
    """The setting of Z."""
    return setting(default, "numbers that a cell is embedded into", least=1, most=100_000)


def width(default: int) -> Any:
    """The setting of the networks' widths."""
    return setting(default, "feature maps of the narrowest convolutions", least=1, most=10_000)


def learning_rate(default: float) -> Any:
    """The setting of the rate of all players, or of those that have no rate of their own."""
    return setting(default, "of all networks but a discriminator with its own", least=0)


def discriminator_learning_rate(default: float) -> Any:
    """The setting of the rate of a discriminator that has its own."""
    return setting(default, "of the discriminator", least=0)


def beta(default: float) -> Any:
    """The setting of the weight of the KL term."""
    return setting(default, "weight of the KL term", least=0)


def net_width(default: int) -> Any:
    """The setting of a residual network's width."""
    return setting(default, "feature maps of its first stage (64 in ResNet18)", least=1, most=1000)


@dataclass(frozen=True)
class GANConfig(ModelConfig):
    """Settings that all GANs share; the defaults are those of CytoGAN (Goldsborough et al. 2017)."""

    latent_size: int = latent_size(100)
    width: int = width(32)
    learning_rate: float = learning_rate(2e-4)


@dataclass(frozen=True)
class AutoencoderConfig(ModelConfig):
    """Settings that AE, VAE and VAE+ share; the defaults are the paper's (see docs/ledger.md)."""

    latent_size: int = setting(256, "Z, numbers that a cell is embedded into", least=1, most=100_000)
    width: int = width(32)
    beta: float = beta(0.0)
    learning_rate: float = learning_rate(1e-3)
    weight_decay: float = setting(
        1e-4, "how strongly convolution kernels are pulled towards zero at each step", least=0
    )
    weight_decay_form: Literal["multiplicative", "gradient"] = setting(
        "multiplicative",
        "multiplicative: kernels times 1 - weight_decay after each step (released code); gradient: weight_decay times "
        "the kernel is added to its gradient, half a squared penalty in the loss (a literal reading of the paper)",
    )
    posterior_norm: bool = setting(True, "batch normalisation of the posterior's mean and log-variance (released code)")

    def __post_init__(self) -> None:
        """Validates the settings."""
        super().__post_init__()
        if self.weight_decay >= 1:
            raise InputError(f"--weight-decay {self.weight_decay}: expected a number below 1")


@dataclass(frozen=True)
class AEConfig(AutoencoderConfig):
    """Settings of the AE."""

    ae_noise: bool = setting(False, "add noise to the posterior's mean when an AE is trained (released code)")

    def __post_init__(self) -> None:
        """Validates the settings."""
        super().__post_init__()
        if self.beta and not self.ae_noise:
            raise InputError(f"--beta {self.beta}: an AE has no KL term unless --ae-noise is given; leave it out")


@dataclass(frozen=True)
class VAEConfig(AutoencoderConfig):
    """Settings of the VAE."""

    beta: float = beta(1.0)


@dataclass(frozen=True)
class BetaVAEConfig(VAEConfig):
    """Settings of the beta-VAE."""

    beta: float = beta(4.0)


@dataclass(frozen=True)
class VAEPlusConfig(AutoencoderConfig):
    """Settings of the VAE+."""

    beta: float = beta(2.0)
    ramp_steps: int = setting(
        2500, "T: discriminator layer i joins the loss at step T*i and has full weight T steps later", least=1
    )
    feature_layers: int = setting(4, "how many discriminator layers join the loss", least=0, most=4)
    feature_weight: float = setting(
        1.0, "full weight gamma that each discriminator layer reaches; 1 in the paper", least=0
    )
    feature_loss_scale: Literal["image", "sum"] = setting(
        "image", "image: each layer weighs as much as the image; sum: plain sum over the layer's values"
    )
    discriminator_learning_rate: float = discriminator_learning_rate(1e-2)
    logit_norm: bool = setting(True, "batch normalisation of the discriminator's logit (released code)")


@dataclass(frozen=True)
class VAEGANConfig(GANConfig):
    """Settings of VAE-GAN."""

    schedule: ClassVar[Schedule] = Schedule(steps=62_500, batch_size=64)
    latent_size: int = latent_size(128)
    learning_rate: float = learning_rate(4e-4)
    feature_share: float = setting(
        1e-6, "share of the feature loss in the decoder's, the rest is for fooling", least=0, most=1
    )


@dataclass(frozen=True)
class AlphaGANConfig(GANConfig):
    """Settings of alpha-GAN."""

    schedule: ClassVar[Schedule] = Schedule(batch_size=64)
    pixel_weight: float = setting(10.0, "weight of the mean absolute error of reconstructions", least=0)


@dataclass(frozen=True)
class BiGANConfig(GANConfig):
    """Settings of BiGAN."""

    schedule: ClassVar[Schedule] = Schedule(batch_size=32)
    width: int = width(16)
    learning_rate: float = learning_rate(7e-5)


@dataclass(frozen=True)
class ALIConfig(BiGANConfig):
    """Settings of ALI."""

    schedule: ClassVar[Schedule] = Schedule(batch_size=100)
    latent_size: int = latent_size(256)
    learning_rate: float = learning_rate(1e-4)


@dataclass(frozen=True)
class BEGANConfig(GANConfig):
    """Settings of BEGAN."""

    schedule: ClassVar[Schedule] = Schedule(batch_size=16)
    width: int = width(64)
    learning_rate: float = learning_rate(1e-5)


@dataclass(frozen=True)
class CytoGANConfig(GANConfig):
    """Settings of LSGAN and WGAN."""

    schedule: ClassVar[Schedule] = Schedule(batch_size=64)
    discriminator_learning_rate: float = discriminator_learning_rate(7e-5)


@dataclass(frozen=True)
class DCGANConfig(CytoGANConfig):
    """Settings of DCGAN."""

    learning_rate: float = learning_rate(1e-5)
    discriminator_learning_rate: float = discriminator_learning_rate(5e-5)


@dataclass(frozen=True)
class WeakConfig(ModelConfig):
    """Settings of weak supervision."""

    schedule: ClassVar[Schedule] = Schedule(steps=12_000, cooldown_share=0.7)

    backbone: Literal["resnet18", "multiscale"] = setting(
        "resnet18", "network: resnet18 (Caicedo et al. 2018), or multiscale (Godinez et al. 2018)"
    )
    net_width: int = net_width(16)
    mixup: float = setting(0.2, "alpha of mixup, blending pairs of crops and their labels; 0: none", least=0)
    net_rate: float = setting(0.05, "learning rate of SGD with Nesterov momentum 0.9", least=0)


@dataclass(frozen=True)
class SimCLRConfig(ModelConfig):
    """Settings of SimCLR, without labels and with weak ones."""

    schedule: ClassVar[Schedule] = Schedule(steps=6_000, cooldown_share=1.0)

    net_width: int = net_width(16)
    temperature: float = setting(0.2, "of the comparison: lower weighs the nearest cells more", least=1e-3)


@dataclass(frozen=True)
class ImageNetConfig(ModelConfig):
    """Settings of the network trained on photographs."""

    untrained: ClassVar[Mapping[str, Any]] = {"weights": "random"}

    layers: Literal["all", "block11"] = setting(
        "all", "blocks whose maps are averaged over the crop: the last of each resolution, or block 11 alone"
    )
    enlarged: int = setting(1, "factor by which crops are enlarged first; 1 is the fastest", least=1, most=8)
    weights: Literal["imagenet", "random"] = setting(
        "imagenet", "random: the same network untrained, to see what the photographs taught it"
    )


@dataclass(frozen=True)
class CellFeaturesConfig(ModelConfig):
    """Settings of the cell features."""

    nuclei: str = setting("", "channel of the nuclei; left out: the first whose name has DNA, DAPI, Hoechst or DRAQ")
    radial: bool = setting(False, "measure also how intensity is distributed over rings; more than twice as slow")


@dataclass(frozen=True)
class PCAConfig(ModelConfig):
    """Settings of the PCA."""

    latent_size: int = latent_size(64)


@dataclass(frozen=True)
class FlowConfig(ModelConfig):
    """Settings of the flow decoder."""

    schedule: ClassVar[Schedule] = Schedule(steps=10_000, batch_size=16, cooldown_share=0.3)
    of: str = setting("", "run whose embeddings are decoded, or a table with a row per cell (docs/training.md)")
    code_size: int = setting(64, "principal components of the embedding that the decoder sees", least=1, most=10_000)
    layout_size: int = setting(16, "numbers that hold the coarse layout of a real cell", least=1, most=1000)
    flow_width: int = setting(64, "feature maps at half the resolution; twice as many at a quarter", least=8, most=1024)
    flow_rate: float = setting(0.02, "learning rate of Muon; that of AdamW is a twentieth", least=0)
    draw_steps: int = setting(10, "steps from noise to a picture, each of two evaluations", least=1, most=1000)

    def __post_init__(self) -> None:
        """Validates the settings."""
        super().__post_init__()
        if self.flow_width % 8:
            raise InputError(f"--flow-width {self.flow_width}: expected a multiple of 8")
