"""The deep Markov model: a state that moves by a learned rule, and what is seen of it at every step."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ..arguments import check_whole
from ..attached import attach
from ..config import Configured
from ..likelihoods import Likelihood, Missing
from ..networks import MLP, Standardise
from ..networks.base import linear
from ..networks.sequences import GRULayer
from .build import Part, as_data, build_part, check_latent, find_part
from .vae import natural_likelihood, with_data

SMALLEST = 1e-3  # of the scales


class SequentialVAE(Configured, nn.Module):
    """p(x, z) = Π_t p(z_t | z_{t−1}) p(x_t | z_t), approximated by q(z | x) = Π_t q(z_t | z_{t−1}, x_t, …, x_T).

    A pendulum is seen at every step, but not how fast it goes, and every measurement has an error. The state z_t holds
    all that the future depends on: where it goes next is a network of where it is, and what is seen is a network of
    the state and nothing else.

        z_t ~ p(z_t | z_{t−1}) = 𝒩(μ(z_{t−1}), diag σ(z_{t−1})²), z_0 learned,    x_t ~ p(x_t | z_t)

    Given z_{t−1}, what was seen before t says nothing more about z_t; what is seen from t on does. The guide therefore
    reads the series from its end to its beginning, h_t = h(x_t, …, x_T), and goes forward by z_{t−1} and h_t.

    Series end at different steps, with NaN behind the end. There is nothing to be learnt from there: the guide follows
    the transition, so that these steps add nothing to the bound, and the reconstruction goes on as a forecast.

    Args:
        transition: p(z_t | z_{t−1}), a module from [L] to a normal distribution, such as `GatedTransition`.
        likelihood: p(x_t | z_t), a module from [L] to a distribution over one step, [D].
        combiner: q(z_t | z_{t−1}, h_t), a module from two tensors to a normal distribution, such as `Combiner`.
        summary: h, a recurrent network from [N, T, D] to [N, T, H].
        centre: brings the steps [N, T, D] into the range that networks like; NaN become numbers.
        latent: L.
        steps: T.

    Raises:
        ValueError: for sizes that are none.

    Reference: Krishnan, Shalit and Sontag, "Structured inference networks for nonlinear state space models", 2017.

    >>> import pyrovae as pv
    >>> data = pv.data.load("pendulums", missing=True)
    >>> vae = pv.models.SequentialVAE.build(data, latent=3, hidden=16)
    >>> pv.encode(vae, data.test[:5])["z_12"].shape
    torch.Size([5, 3])

    pyrovae train SequentialVAE --data pendulums --missing true --learning_rate 2e-2
    """

    def __init__(
        self,
        transition: nn.Module,
        likelihood: nn.Module,
        combiner: nn.Module,
        summary: nn.Module,
        centre: nn.Module,
        latent: int,
        steps: int,
    ) -> None:
        super().__init__()
        self.transition, self.likelihood = transition, likelihood
        self.combiner, self.summary, self.centre = combiner, summary, centre
        self.start = nn.Parameter(torch.zeros(check_whole("SequentialVAE", "latent", latent)))  # z_0
        self.steps = check_whole("SequentialVAE", "steps", steps)
        attach(self)

    def model(self, x: Tensor) -> None:
        """Π_t p(z_t | z_{t−1}) p(x_t | z_t); x: [B, T, D]."""
        with pyro.plate("data", len(x), dim=-1):
            z, path = self.start, []
            for t in range(self.steps):
                z = pyro.sample(f"z_{t + 1}", self.transition(z))
                path.append(z)
            pyro.sample("x", self.likelihood(torch.stack(path, -2)).to_event(1), obs=x)  # [*, T, L] -> event [T, D]

    def guide(self, x: Tensor) -> None:
        """Π_t q(z_t | z_{t−1}, x_t, …, x_T), and p(z_t | z_{t−1}) behind the end."""
        h, lasts = self.look_back(x)
        with pyro.plate("data", len(x), dim=-1):
            z = self.start
            for t in range(self.steps):
                p, q = self.transition(z).base_dist, self.combiner(z, h[:, t]).base_dist
                here = lasts[:, t, None]
                loc, scale = torch.where(here, q.loc, p.loc), torch.where(here, q.scale, p.scale)
                z = pyro.sample(f"z_{t + 1}", dist.Normal(loc, scale).to_event(1))

    def look_back(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """h_t = h(x_t, …, x_T), [B, T, H], and whether a series lasts until t, [B, T]."""
        t = torch.arange(x.shape[1], device=x.device)
        length = ((t + 1) * ~x.isnan().all(-1)).amax(1, keepdim=True)  # of series with holes, up to the last step
        backwards = (length - 1 - t) % x.shape[1]  # its own inverse; a series begins with its last step
        h = self.summary(_in_order(self.centre(x), backwards))
        return _in_order(h, backwards), t < length

    @classmethod
    def build(cls, data: Any, latent: int = 8, hidden: int = 64, likelihood: Part = "auto") -> SequentialVAE:
        """A model whose sizes fit series [T, D].

        Args:
            data: a `pyrovae.data.Dataset`, or a tensor or array [N, T, D]. Series of different lengths have NaN behind
                their end, and are loaded with missing=True.
            latent: number of dimensions L of the state.
            hidden: width of every network.
            likelihood: p(x_t | z_t), by name; "auto" is what the values of the data ask for.

        Raises:
            ValueError: for data that are no series, an unknown name, or sizes that are none.

        >>> import torch, pyrovae as pv
        >>> pv.models.SequentialVAE.build(torch.randn(5, 7, 3), latent=2, hidden=8).steps
        7
        """
        data = as_data("SequentialVAE.build", data)
        check_latent("SequentialVAE.build", latent)
        check_whole("SequentialVAE.build", "hidden", hidden)
        if len(data.event_shape) != 2:
            raise ValueError(
                f"SequentialVAE.build expects series [T, D], got events of shape {list(data.event_shape)}; give a "
                "series of scalars as x[..., None]"
            )
        if likelihood == "auto":
            likelihood = natural_likelihood(data)
        r, r_options = find_part(cls, "likelihood", likelihood, Likelihood)
        r_options = with_data(r, r_options, data)
        steps, features = data.event_shape
        missing = getattr(data, "missing", False)
        decoder = MLP([latent], build_part(r.decoded, r_options, [features]), [hidden])
        step = build_part(r, r_options, decoder)
        some = next(data.batches("train", 10_000, shuffle=False)).flatten(0, 1)  # steps of a series are alike
        return cls(
            GatedTransition(latent, hidden),
            Missing(step) if missing else step,
            Combiner(latent, hidden),
            GRULayer(features, hidden),
            Standardise([features], missing).to_data(some, rescale=data.values in ("counts", "real")),
            latent,
            steps,
        )


class GatedTransition(Configured, nn.Module):
    """p(z_t | z_{t−1}) = 𝒩(μ, diag σ²): between a linear rule and a network, as a gate says for every dimension.

        g = sigmoid(f_g(z_{t−1})),    h = f_h(z_{t−1})
        μ = (1 − g) ⊙ (A z_{t−1} + a) + g ⊙ h,    σ = softplus(S relu(h) + s)

    A is the identity at the start: a state that nothing is known of stays where it is.

    Args:
        latent: L.
        hidden: width of f_g and f_h, which have one hidden layer.

    >>> GatedTransition(3, 16)(torch.zeros(5, 3)).batch_shape
    torch.Size([5])
    """

    def __init__(self, latent: int, hidden: int) -> None:
        super().__init__()
        self.hidden = linear(latent, 2 * hidden)  # that of f_g, then that of f_h
        self.gate, self.proposal = linear(hidden, latent), linear(hidden, latent)
        self.straight, self.scale = linear(latent, latent), linear(latent, latent)
        nn.init.eye_(self.straight.weight)

    def forward(self, z: Tensor) -> Any:
        """A normal distribution over [L] for each z, [*leading, L]."""
        of_gate, of_proposal = self.hidden(z).relu().chunk(2, -1)
        proposal = self.proposal(of_proposal)
        loc = torch.lerp(self.straight(z), proposal, self.gate(of_gate).sigmoid())
        return dist.Normal(loc, F.softplus(self.scale(proposal.relu())) + SMALLEST).to_event(1)


class Combiner(Configured, nn.Module):
    """q(z_t | z_{t−1}, h_t) = 𝒩(μ(c), diag σ(c)²), c = ½ (tanh(W z_{t−1} + w) + h_t), the last layer giving μ and σ.

    Args:
        latent: L.
        hidden: width H of h_t.

    >>> Combiner(3, 16)(torch.zeros(5, 3), torch.zeros(5, 16)).batch_shape
    torch.Size([5])
    """

    def __init__(self, latent: int, hidden: int) -> None:
        super().__init__()
        self.state, self.code = linear(latent, hidden), linear(hidden, 2 * latent)

    def forward(self, z: Tensor, h: Tensor) -> Any:
        """A normal distribution over [L] for each z, [*leading, L], and h, [*leading, H]."""
        loc, scale = self.code((self.state(z).tanh() + h) / 2).chunk(2, -1)
        return dist.Normal(loc, F.softplus(scale) + SMALLEST).to_event(1)


def _in_order(x: Tensor, order: Tensor) -> Tensor:
    """Steps [B, T, *] in another order, [B, T]."""
    return x.gather(1, order[..., None].expand_as(x))
