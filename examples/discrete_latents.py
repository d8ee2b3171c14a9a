"""Discrete latents: the exact sum against VIMCO, control variates and relaxations, on a model small enough to know.

    python examples/discrete_latents.py

A VAE of six Bernoulli latents has 64 values of z, so that log p(x), the ELBO and its gradient are sums. The same
weights are put under every way of the library: the exact sum (no noise at all), estimators without bias (score
function, VIMCO, DisARM, REBAR), straight-through gradients, which are biased, and a relaxed model, whose bound is that
of another model. "bias" is measured against the gradient of the bound of each; wake-sleep follows another divergence.

References: Mnih and Rezende, "Variational inference for Monte Carlo objectives", 2016; Dong, Mnih and Tucker, "DisARM",
2020; Tucker et al., "REBAR", 2017; Maddison, Mnih and Teh, "The Concrete distribution", 2017.
"""

import argparse

import pandas as pd
import torch

import pyrovae as pv
from pyrovae import objectives, posteriors, priors

DRAWN = {
    "score, leave one out": objectives.ELBO(4, gradient="score", baseline="leave_one_out"),
    "VIMCO": objectives.IWAE(4, "vimco"),
    "DisARM": objectives.DisARM(2),
    "REBAR": objectives.REBAR(4),
    "wake-sleep": objectives.WakeSleep(4),
}


def programs(vae):
    """One set of weights in five programs, each with the objectives that are for it."""
    prior, likelihood, encoder = vae.prior, vae.likelihood, vae.posterior.network
    model = pv.models.VAE
    return [
        (pv.models.EnumerableVAE(prior, likelihood, vae.posterior), {"exact sum": objectives.ELBO()}),
        (pv.models.EnumerableVAE(prior, likelihood, vae.posterior, enumerate=False), DRAWN),
        (
            model(prior, likelihood, posteriors.StraightThroughBernoulli(encoder)),
            {"straight-through": objectives.ELBO(4)},
        ),
        (
            model(priors.RelaxedBernoulli(prior.latent), likelihood, posteriors.RelaxedBernoulli(encoder)),
            {"relaxed (another model)": objectives.ELBO(4, kl="analytic")},
        ),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=500, help="gradients of each estimator")
    parser.add_argument("--epochs", type=int, default=20, help="of training by the exact sum, before")
    parser.add_argument("--latent", type=int, default=6)
    given = parser.parse_args()

    data = pv.data.load("digits", binarise="threshold")
    torch.manual_seed(0)
    vae = pv.models.EnumerableVAE.build(data, latent=given.latent)
    pv.fit(vae, data, objectives.ELBO(), epochs=given.epochs, progress=False)
    x = next(data.batches("test", 32, shuffle=False))
    tables = [pv.lab.compare(p, x, o, draws=given.draws, progress=False) for p, o in programs(vae)]
    table = pd.concat([t[t.group == "guide"] for t in tables], ignore_index=True)
    columns = ["objective", "decoder_passes", "gap", "gradient", "bias", "relative_bias_low", "relative_bias_high"]
    columns += ["variance", "snr"]
    print("the guide's gradient")
    print(table[columns].to_string(index=False, float_format="{:.3g}".format))


if __name__ == "__main__":
    main()
