"""A generative model of your own. Change the story; training, bounds, evidence and pictures follow from it.

    pyrovae train {file}:Story                      # digits, 8×8 counts 0..16; --data NAME or FILE.npz for others
    pyrovae check {file}:Story                      # what it is as maths, and what is wrong with it, if anything
    pyrovae train {file}:Story --style 5 --epochs 50 --guide.family flow

No guide is written: q(z | x) is derived from the model. To write one yourself, add a method `guide(self, x)` that
samples the same latents, given x, in the same plates.
"""

import pyro
import pyro.distributions as dist
import torch.nn as nn
from torch import Tensor


class Story(nn.Module):
    """p(x, thickness, style) = p(thickness) p(style) p(x | thickness, style).

    Args:
        style: number of latent dimensions of the style; an option of the command line, as are all arguments here.
        hidden: width of the decoder's hidden layer.
    """

    def __init__(self, style: int = 8, hidden: int = 200) -> None:
        super().__init__()
        self.style = style
        # Networks are plain torch modules. 64 pixels go out, as many as one image has.
        self.decoder = nn.Sequential(nn.Linear(style, hidden), nn.ReLU(), nn.Linear(hidden, 64))

    def model(self, x: Tensor) -> None:
        """How one batch of data [B, 1, 8, 8] comes about. Of x only its length is used, until it is observed."""
        # The plate says that the data are independent of each other. It is called "data", and has B rows.
        with pyro.plate("data", len(x), dim=-1):
            # Latents: pyro.sample(name, distribution). .to_event(1) makes the 8 dimensions of `style` one datum's.
            style = pyro.sample("style", dist.Normal(0.0, 1.0).expand([self.style]).to_event(1))
            # A positive latent, a scalar for each datum: the guide will keep it positive.
            thickness = pyro.sample("thickness", dist.Gamma(4.0, 4.0))
            # [..., None] lines the scalar up with the pixels; leading dimensions (particles, batch) are kept.
            logits = self.decoder(style) + thickness[..., None].log()
            image = logits.unflatten(-1, (1, 8, 8))
            # The likelihood: what is observed has obs=x. .to_event(3) makes the pixels of an image one datum's.
            pyro.sample("x", dist.Binomial(16, logits=image).to_event(3), obs=x)
