"""A variational autoencoder in one file: Pyro, torch, and the maths in plain sight.

    python examples/vae_from_scratch.py

The story of the data. Someone thinks of a digit: a short vector z, which we never see. The image x that
appears on paper depends on it. As probabilities,

    p(x, z) = p(z) p(x | z)        the model:     prior times likelihood
    p(z | x) = p(x, z) / p(x)      Bayes:         which z could have made this x?
    p(x) = ∫ p(x, z) dz            the evidence:  how well does the model explain x at all?

A good model gives real images a high log p(x). The integral is out of reach, so Bayes' rule is too. We learn an
approximate posterior q(z | x) beside the model. For any q whatever,

    log p(x) = ELBO + KL(q(z | x) ‖ p(z | x)),     ELBO = E_q[log p(x | z) + log p(z) − log q(z | x)]

and as a KL is never negative, the ELBO is a lower bound of log p(x). Raising it raises the evidence, or brings q
closer to the true posterior, or both. That is all of the training.
"""

import argparse
import math
from typing import Any

import pyro
import pyro.distributions as dist
import torch
import torch.nn as nn
from pyro import poutine
from sklearn.datasets import load_digits
from torch import Tensor

SIDE, LEVELS = 8, 16  # images of 8×8 pixels; a pixel counts how many of 16 dots in it are inked


class VAE(nn.Module):
    """p(x, z) = p(z) p(x | z), approximated by q(z | x)."""

    def __init__(self, latent: int = 8, hidden: int = 128) -> None:
        super().__init__()
        pixels = SIDE * SIDE
        self.latent = latent
        self.encoder = nn.Sequential(nn.Linear(pixels, hidden), nn.ReLU(), nn.Linear(hidden, 2 * latent))
        self.decoder = nn.Sequential(nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, pixels))

    # The three distributions. Networks only supply their parameters.

    def prior(self) -> dist.TorchDistribution:  # p(z) = 𝒩(0, I): simple, as the decoder can bend it into any shape
        return dist.Normal(torch.zeros(self.latent), 1.0).to_event(1)  # to_event: the L numbers are one draw

    def likelihood(self, z: Tensor) -> dist.TorchDistribution:  # p(x | z): given z, each of the 16 dots is a coin
        return dist.Binomial(LEVELS, logits=self.decoder(z)).to_event(1)

    def posterior(self, x: Tensor) -> dist.TorchDistribution:  # q(z | x) = 𝒩(μ(x), diag σ(x)²)
        loc, log_scale = self.encoder(x / LEVELS).chunk(2, dim=-1)  # [B, 2L] -> [B, L], [B, L]
        return dist.Normal(loc, log_scale.exp()).to_event(1)

    # The two Pyro programs. The plate says that the B images of a batch are independent.

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", self.prior())  # p(z)
            pyro.sample("x", self.likelihood(z), obs=x)  # p(x | z), at the x that we saw

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            # Reparametrisation: z = μ + σ ε with ε ~ 𝒩(0, I). The chance is all in ε, so that gradients flow
            # through z into μ and σ. Pyro draws a Normal in this way by itself.
            pyro.sample("z", self.posterior(x))  # q(z | x)


def log_weight(vae: VAE, x: Tensor, particles: int = 1) -> Tensor:
    """log w = log p(x | z) + log p(z) − log q(z | x) for K draws z ~ q(z | x): [K, B], in nats."""
    with pyro.plate("particles", particles, dim=-2):  # draws to the left of the data: [K, B]
        guide: Any = poutine.trace(vae.guide).get_trace(x)  # run q, and write down what it drew
        model: Any = poutine.trace(poutine.replay(vae.model, trace=guide)).get_trace(x)  # run p with these z
    z = guide.nodes["z"]["value"]  # [K, B, L]
    log_likelihood = model.nodes["x"]["fn"].log_prob(x)  # log p(x | z)
    log_prior = model.nodes["z"]["fn"].log_prob(z)  # log p(z)
    log_posterior = guide.nodes["z"]["fn"].log_prob(z)  # log q(z | x)
    return log_likelihood + log_prior - log_posterior


def elbo(vae: VAE, x: Tensor, particles: int = 1) -> Tensor:
    """The evidence lower bound of each image: the mean log weight, [B]. One draw is enough to learn from."""
    return log_weight(vae, x, particles).mean(0)  # [K, B] -> [B]


def log_evidence(vae: VAE, x: Tensor, particles: int = 500) -> Tensor:
    """log p(x) by importance sampling, [B]: p(x) = E_q[w], so average the weights first, then take the log.

    The ELBO takes the log first. That order is the whole difference, and the KL is its size.
    """
    return log_weight(vae, x, particles).logsumexp(0) - math.log(particles)  # [K, B] -> [B]


def train(vae: VAE, data: Tensor, epochs: int, batch_size: int = 64, learning_rate: float = 2e-3) -> list[float]:
    """Stochastic gradient ascent on the ELBO; its mean over each epoch, in nats per image."""
    optimizer = torch.optim.Adam(vae.parameters(), lr=learning_rate)
    bounds = []
    for epoch in range(epochs):
        total = 0.0
        for x in data[torch.randperm(len(data))].split(batch_size):
            bound = elbo(vae, x)  # [B]
            loss = -bound.mean()  # optimisers go downhill
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += bound.sum().item()
        bounds.append(total / len(data))
        if epoch % 10 == 9 or epoch in (0, epochs - 1):
            print(f"epoch {epoch + 1:3d}   ELBO {bounds[-1]:8.2f} nats per image")
    return bounds


def draw(images: Tensor) -> str:
    """Images [N, 64] side by side as text, two characters a pixel."""
    inks = " .:-=+*#%@"
    level = (images.view(-1, SIDE, SIDE) / LEVELS * (len(inks) - 1)).round().int().tolist()
    return "\n".join("   ".join("".join(inks[v] * 2 for v in image[row]) for image in level) for row in range(SIDE))


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a VAE on small digits, and look at what it knows.")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)

    digits = torch.tensor(load_digits().data, dtype=torch.float32)  # [1797, 64], counts 0..16
    digits = digits[torch.randperm(len(digits))]
    training, test = digits[:1437], digits[1437:]  # what is reported comes from images that training never saw

    vae = VAE()
    train(vae, training, options.epochs)

    with torch.no_grad():
        bound = elbo(vae, test, particles=100).mean().item()
        evidence = torch.cat([log_evidence(vae, x) for x in test.split(40)]).mean().item()
        print(f"\n{len(test)} test images, nats per image:")
        print(f"  ELBO                  {bound:8.2f}")
        print(f"  log p(x), estimated   {evidence:8.2f}   (importance sampling, 500 particles; on average too low)")
        print(f"  KL(q || p(z | x))     {evidence - bound:8.2f}   their difference: what q still misses")

        print("\nNew digits, E[x | z] with z ~ p(z):\n")
        for _ in range(2):
            print(draw(vae.likelihood(vae.prior().sample([4])).mean), "\n", sep="")


if __name__ == "__main__":
    main()
