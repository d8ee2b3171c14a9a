"""How near what a model makes of a datum's code comes to the datum: there for a guide without a density, too."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro.distributions.util import sum_rightmost
from torch import Tensor

from ..program import densities, evaluating, home, read_site
from ..program.handlers import mean_of
from .arguments import check_data
from .evidence import _ELEMENTS, _ROWS
from .samples import codes_of, observed_sites, unconditioned, values_of


@dataclass(frozen=True)
class Fidelity:
    """Figures of N data at the means z of q(z | x), per datum.

    Attributes:
        squared_error: Σ_d (x_d − E[x_d | z])² over what is observed of the datum, [N], in units of x².
        distortion: −log p(x | z), [N], in nats.
        dimensions: how many numbers of the datum are observed, [N].
        points: names of latents for which the guide has a point in the place of a density, as an autoencoder has it.
    """

    squared_error: Tensor
    distortion: Tensor
    dimensions: Tensor
    points: tuple[str, ...] = ()

    @property
    def per_dimension(self) -> float:
        """The mean squared error of one number."""
        return float(self.squared_error.sum() / self.dimensions.sum())

    @property
    def standard_error(self) -> float:
        """Standard error of the mean squared error of a datum over the choice of data; NaN for one."""
        n = len(self.squared_error)
        return float(self.squared_error.std() / math.sqrt(n)) if n > 1 else math.nan

    def to_dict(self) -> dict[str, Any]:
        """Means over the data as plain numbers; an error that is undefined is None."""
        error = self.standard_error
        return {
            "squared_error": float(self.squared_error.mean()),
            "squared_error_standard_error": None if math.isnan(error) else error,
            "squared_error_per_dimension": self.per_dimension,
        }


def fidelity(vae: Any, x: Tensor, seed: int = 0) -> Fidelity:
    """The squared error of E[x | z] at the mean z of q(z | x), for each datum.

        ‖x − E[x | z = E_q[z]]‖²

    It compares codes of one size. It is no bound, and says nothing of how probable the data are. Evaluation mode, no
    gradients.

    Args:
        vae: anything with a Pyro `model(x)` and `guide(x)`.
        x: data [N, *event]; NaN is left out where it means "not observed".
        seed: of what is drawn where a latent has no mean.

    Raises:
        ValueError: for no data or none that are a tensor, and a model without an observed site that has a mean and
            real values, counts or {0, 1}.

    >>> import pyrovae as pv
    >>> data = pv.data.load("digits")
    >>> fidelity(pv.models.VAE.build(data, latent=2), data.test[:20]).squared_error.shape
    torch.Size([20])
    """
    check_data("fidelity", x)
    device, dtype = home(vae)
    rows = max(1, min(_ROWS, _ELEMENTS // max(1, math.prod(x.shape[1:]))))
    with evaluating(vae), pyro.validation_enabled(True):
        points = tuple(densities(vae, x[:rows].to(device, dtype)).points)
    parts = [_figures(vae, batch.to(device, dtype), seed) for batch in x.split(rows)]
    error, distortion, dimensions = (torch.cat(t).cpu() for t in zip(*parts, strict=True))
    return Fidelity(error, distortion, dimensions, points)


def _figures(vae: Any, x: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Squared error, distortion, and numbers that are observed: each [B]."""
    codes = values_of(codes_of("fidelity", vae, x, seed))
    trace = unconditioned(vae, codes, len(x), seed, True, x)
    errors: list[Tensor] = []
    there: list[Tensor] = []
    distortion = x.new_zeros(len(x))
    for _, node in observed_sites(trace):
        site = read_site(node, (1, len(x)), None, "model")
        value = node["infer"]["obs"]
        distortion = distortion - site.reduce(site.distribution.log_prob(value))[0]
        if (mean := mean_of(site.distribution)) is None:  # a class label, say
            continue
        error, event = (value - mean).square(), site.distribution.event_dim
        errors.append(site.reduce(sum_rightmost(error.nan_to_num(nan=0.0), event))[0])
        there.append(site.reduce(sum_rightmost((~error.isnan()).to(error.dtype), event))[0])
    if not errors:
        raise ValueError(
            "fidelity expects an observed site with a mean, got none: there is no squared error; use pv.evaluate"
        )
    return torch.stack(errors).sum(0), distortion, torch.stack(there).sum(0)
