"""What one of several processes computes in three steps in float64; `torchrun ... process_training.py MODEL OUT`."""

import sys

import numpy as np
import torch

from phenolens.models import MODELS, model_config, processes
from phenolens.models.interface import Batch
from phenolens.training import loop
from phenolens.training.distributed import together

STEPS = (450, 451, 452)  # all four layers are on, the last of them half
BATCH = 6
SIDE_PX = (
    44  # at 36 the decoder's first normalisation takes the biases of the embedding away: a gradient of pure rounding
)


def trained(name: str) -> dict[str, torch.Tensor]:
    """Every step's terms and gradient norms, means over processes, and the weights and running averages after them."""
    torch.manual_seed(3)
    settings = {"width": 4, "latent_size": 8} | ({"ramp_steps": 100} if name == "vaeplus" else {})
    model = MODELS[name].build(2, SIDE_PX, model_config(name, settings)).double().train()
    players = model.players()
    random = np.random.default_rng(0)
    found = {}
    for step in STEPS:
        crops = torch.from_numpy(random.random((model.draws, BATCH, 2, SIDE_PX, SIDE_PX)))
        own = torch.stack([processes.own_rows(batch) for batch in crops])
        torch.manual_seed(step)
        losses = model.losses(Batch.unlabelled(own, step))
        norms = loop.take_gradients(players, losses, clip_norm=None)
        loop.step_players(players)
        terms = loop.record(losses, norms)
        found |= {f"step {step}: {name}": torch.tensor(value, dtype=torch.float64) for name, value in terms.items()}
    return found | model.state_dict()


if __name__ == "__main__":
    with together(torch.device("cpu")):
        torch.save(trained(sys.argv[1]), f"{sys.argv[2]}/process{processes.number()}.pt")
