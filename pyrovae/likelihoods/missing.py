"""The likelihood of what is observed of a datum."""

from __future__ import annotations

from typing import Any, ClassVar

import pyro.distributions as dist
import torch.nn as nn
from torch import Tensor
from torch.distributions import Independent

from ..config import Configured
from ..distributions.missing import WhereObserved


class Missing(Configured, nn.Module):
    """p(x_obs | z) of any likelihood that is a product over elements; NaN in x means "not observed".

        log p(x_obs | z) = Σ_{d observed} log p(x_d | z)

    The rest of x is integrated out, and bounds are on log p(x_obs): right where data are missing at random, that is
    where what is missing does not depend on the values that are not seen. The posterior gets x with its NaN:
    `networks.Standardise(event, missing=True)` in front of an encoder makes them zeros. `VAE.build` wires both for data
    that are loaded with missing=True.

    Args:
        likelihood: p(x | z), a module from z to a distribution with independent elements.

    Attributes:
        latent: as in `Likelihood`.

    Raises:
        ValueError: from forward, for a likelihood that is no product over elements.

    Reference: Mattei and Frellsen, "MIWAE: deep generative modelling and imputation of incomplete data sets", 2019.

    >>> import torch, pyrovae as pv
    >>> p = pv.likelihoods.Missing(pv.likelihoods.Normal(pv.networks.MLP([2], [3]), scale=1.0))(torch.zeros(1, 2))
    >>> p.log_prob(torch.full((1, 3), torch.nan))
    tensor([0.], grad_fn=...)
    """

    takes_missing: ClassVar[bool] = True

    def __init__(self, likelihood: nn.Module) -> None:
        super().__init__()
        self.likelihood = likelihood
        self.latent: int | None = getattr(likelihood, "latent", None)

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        """p(x_obs | z): z is [*leading, L], the distribution has batch shape [*leading] and the data's event shape."""
        p: Any = self.likelihood(z)
        if not isinstance(p, Independent) or p.base_dist.event_shape:
            raise ValueError(
                f"Missing expects a likelihood that is a product over elements, got {type(self.likelihood).__name__}, "
                f"whose distribution is {p}; use one with independent elements, as Normal or Bernoulli, or impute x"
            )
        inside = getattr(type(self.likelihood), "inside", 0.0)
        return WhereObserved(p.base_dist, inside).to_event(p.reinterpreted_batch_ndims)
