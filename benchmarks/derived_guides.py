"""Derived guides beside guides written by hand, and beside factorised ones: equal models, data and trainings.

    python -m benchmarks.derived_guides --output benchmarks/results/derived-guides.md

In a row of the table the guide alone differs. Derived guides have the width of the encoder written by hand. All figures
are of the test split, in nats per datum: means over seeds, and ± the standard deviation over them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import torch
import torch.nn as nn
from torch import Tensor

import pyrovae as pv
from pyrovae.config import describe
from pyrovae.networks import MLP, Chain, Standardise

WIDTH = 200


def normal(y: Tensor) -> Any:
    """𝒩 from μ and log σ side by side."""
    loc, log_scale = y.chunk(2, -1)
    return dist.Normal(loc, log_scale.exp()).to_event(1)


class TwoLayers(nn.Module):
    """z2 ~ 𝒩(0, I), z1 | z2 ~ 𝒩(μ(z2), diag σ²), x | z1 ~ Binomial(16); by hand q(z1 | x) q(z2 | z1)."""

    def __init__(self, data: pv.data.Dataset, low: int = 10, top: int = 4) -> None:
        super().__init__()
        self.top = top
        self.prior = MLP([top], [low], [WIDTH])
        self.log_scale = nn.Parameter(torch.zeros(low))
        self.decoder = MLP([low], [1, 8, 8], [WIDTH])
        centre = Standardise([1, 8, 8]).to_data(data.train, rescale=True)
        self.encoder = Chain(centre, MLP([1, 8, 8], [2 * low], [WIDTH]))
        self.upper = MLP([low], [2 * top], [WIDTH])

    def model(self, x: Tensor) -> None:
        """p(z2) p(z1 | z2) p(x | z1)."""
        with pyro.plate("data", len(x), dim=-1):
            z2 = pyro.sample("z2", dist.Normal(x.new_zeros(self.top), 1.0).to_event(1))
            z1 = pyro.sample("z1", dist.Normal(self.prior(z2), self.log_scale.exp()).to_event(1))
            pyro.sample("x", dist.Binomial(16, logits=self.decoder(z1)).to_event(3), obs=x)

    def guide(self, x: Tensor) -> None:
        """q(z1 | x) q(z2 | z1)."""
        with pyro.plate("data", len(x), dim=-1):
            z1 = pyro.sample("z1", normal(self.encoder(x)))
            pyro.sample("z2", normal(self.upper(z1)))


class Causes(nn.Module):
    """a, b ~ 𝒩(0, I_3), x ~ 𝒩(A a + B b, 0.3² I_6), A and B known and alike: what a explains b may explain as well."""

    scale = 0.3

    def __init__(self) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(0)
        a = torch.randn(6, 3, generator=g)
        self.register_buffer("a", a)
        self.register_buffer("b", a + 0.3 * torch.randn(6, 3, generator=g))

    def model(self, x: Tensor) -> None:
        """p(a) p(b) p(x | a, b)."""
        with pyro.plate("data", len(x), dim=-1):
            a = pyro.sample("a", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
            b = pyro.sample("b", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(a @ self.a.T + b @ self.b.T, self.scale).to_event(1), obs=x)

    def log_evidence(self, x: Tensor) -> Tensor:
        """log 𝒩(x; 0, A Aᵀ + B Bᵀ + σ² I)."""
        cov = self.a @ self.a.T + self.b @ self.b.T + self.scale**2 * torch.eye(6)
        return dist.MultivariateNormal(torch.zeros(6), cov).log_prob(x)

    def data(self) -> pv.data.Dataset:
        """3,000 draws for training, 1,000 for the test."""
        g = torch.Generator().manual_seed(1)
        a, b, noise = (torch.randn(4000, n, generator=g) for n in (3, 3, 6))
        x = a @ self.a.T + b @ self.b.T + self.scale * noise
        return pv.data.from_arrays(x[:3000], test=x[3000:])


def apart(guide: Any) -> Any:
    """The same guide with every latent drawn given x alone."""
    plain = describe(guide)["init_args"]
    factors = [f | {"given": (), "data": True} for f in plain["factors"]]
    made = type(guide)(**(plain | {"factors": factors}))
    made.encoder.load_state_dict(guide.encoder.state_dict())
    return made


def rows(digits: pv.data.Dataset) -> dict[str, tuple[pv.data.Dataset, dict[str, Callable[[], Any]]]]:
    """By model: its data, and programs by the name of the guide."""

    def vae() -> Any:
        return pv.models.VAE.build(digits, latent=20, hidden=[WIDTH])

    causes = Causes().data()
    return {
        "VAE, digits": (digits, {"by hand": vae, "derived": lambda: _alone(vae(), digits)}),
        "two layers, digits": (
            digits,
            {"by hand": lambda: TwoLayers(digits), "derived": lambda: _alone(TwoLayers(digits), digits)},
        ),
        "two causes, drawn": (
            causes,
            {
                "factorised": lambda: pv.Program(Causes(), apart(pv.amortize(Causes(), causes, hidden=[WIDTH]))),
                "derived": lambda: pv.Program(Causes(), pv.amortize(Causes(), causes, hidden=[WIDTH])),
            },
        ),
    }


class _Model(nn.Module):
    """A program without its guide."""

    def __init__(self, program: Any) -> None:
        super().__init__()
        self.program = program
        for name in ("posterior", "encoder", "upper"):
            if hasattr(program, name):
                delattr(program, name)

    def model(self, x: Tensor) -> None:
        """That of the program."""
        self.program.model(x)


def _alone(program: Any, data: pv.data.Dataset) -> Any:
    story = _Model(program)
    return pv.Program(story, pv.amortize(story, data, hidden=[WIDTH]))


def measure(build: Callable[[], Any], data: pv.data.Dataset, epochs: int, seed: int, particles: int) -> list[float]:
    """Log evidence and ELBO of the test split after one training."""
    torch.manual_seed(seed)
    vae = build()
    pv.fit(vae, data, epochs=epochs, seed=seed, progress=False)
    assert data.test is not None
    ev = pv.evaluate(vae, data.test, particles, seed)
    return [ev.log_evidence_mean, float(ev.elbo.mean())]


def main() -> None:
    """Prints the table, and writes it where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--particles", type=int, default=1000)
    parser.add_argument("--output", type=Path, default=None)
    options = parser.parse_args()
    lines = [
        f"{options.epochs} epochs of the default training, {options.seeds} seeds, {options.particles:,} particles; "
        "test split, nats per datum, ± over seeds.",
        "",
        "| model | guide | | log evidence | ELBO |",
        "|---|---|---|---|---|",
    ]
    for model, (data, guides) in rows(pv.data.load("digits")).items():
        for name, build in guides.items():
            runs = [measure(build, data, options.epochs, seed, options.particles) for seed in range(options.seeds)]
            found = torch.tensor(runs)
            guide = build()
            told = str(guide.parts["guide"]).replace("|", "\\|") if isinstance(guide, pv.Program) else ""
            cells = [f"{m:.2f} ± {s:.2f}" for m, s in zip(found.mean(0), found.std(0), strict=True)]
            lines.append(f"| {model} | {name} | {told} | {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    test = Causes().data().test
    assert test is not None
    exact = Causes().log_evidence(test).mean()
    lines.append(f"\nExact log evidence of the two causes: {exact:.2f}.")
    print("\n".join(lines))
    if options.output is not None:
        options.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
