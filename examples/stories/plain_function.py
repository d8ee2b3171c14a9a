"""Wines, of which all columns are positive: a plain function whose parameters are named where they are used.

    z ~ 𝒩(0, I_3),    log x_d | z ~ 𝒩((b + z W)_d, s_d²)

    pyrovae train examples/stories/plain_function.py:wine --data wine --learning_rate 1e-2 --epochs 300

Test log evidence, nats per datum: −18.91 ± 0.49. Baseline, a log-normal for every column: −21.77.
"""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

# Typical values of the 13 columns, in their units: alcohol in per cent, ..., proline in mg/l.
TYPICAL = torch.tensor([13, 2.0, 2.4, 20, 100, 2.3, 2.0, 0.36, 1.6, 5.0, 0.96, 2.6, 750])


def wine(x: Tensor) -> None:
    """p(x, z) = p(z) Π_d LogNormal(x_d | (b + z W)_d, s_d), z in three dimensions; W, b and s are parameters."""
    loadings = pyro.param("loadings", lambda: 0.1 * torch.randn(3, 13))
    typical = pyro.param("typical", lambda: TYPICAL.log())
    spread = pyro.param("spread", lambda: torch.full((13,), 0.3), constraint=constraints.positive)
    with pyro.plate("data", len(x), dim=-1):
        z = pyro.sample("z", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
        pyro.sample("x", dist.LogNormal(typical + z @ loadings, spread).to_event(1), obs=x)
