"""Mixtures: of normals, with a gradient through the draws, and of any other distributions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from .base import Broadcasting


def _choose(log_weights: Tensor, shape: Sequence[int]) -> Tensor:
    """Numbers of components, [*shape], from the log weights [*, C]."""
    u = torch.rand((*shape, 1), dtype=log_weights.dtype, device=log_weights.device)
    return (log_weights.exp().cumsum(-1)[..., :-1] < u).sum(-1)


class NormalMixture(Broadcasting):
    """Σ_c π_c 𝒩(z; μ_c, diag σ_c²), with a gradient through its draws.

    A draw is that of a component, and which one it was has no gradient. The gradient of the mean of f over draws is
    instead that of a flow of probability, dz/dθ, that moves the draws as the density moves:

        dz/dμ_c = r_c,    dz/dσ_c = r_c (z − μ_c) / σ_c,    r_c = p(c | z)
        dz/dlog π_c:      z_l moves so that the distribution functions F_l(z_l | z_1 … z_{l−1}) keep their values

    It is unbiased. The last line is implicit reparametrisation; it takes an [L, L] triangular solve a draw, and where
    components are far apart in every dimension the gradient of their weights is large and rare. First derivatives
    only: there is no second derivative through a draw.

    Args:
        logits: log π up to a constant, [*, C].
        loc: μ, [*, C, L].
        scale: σ, [*, C, L].

    References: Graves, "Stochastic backpropagation through mixture density distributions", 2016; Figurnov, Mohamed and
    Mnih, "Implicit reparameterization gradients", 2018; Jankowiak and Karaletsos, "Pathwise derivatives for
    multivariate distributions", 2019.

    >>> NormalMixture(torch.zeros(5), torch.zeros(5, 2), torch.ones(5, 2)).expand([3]).rsample().shape
    torch.Size([3, 2])
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "logits": constraints.real_vector,
        "loc": constraints.real_vector,
        "scale": constraints.independent(constraints.positive, 1),
    }
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, logits: Tensor, loc: Tensor, scale: Tensor, validate_args: bool | None = None) -> None:
        self.logits, self.loc, self.scale = logits.log_softmax(-1), loc, scale
        batch = torch.broadcast_shapes(logits.shape[:-1], loc.shape[:-2], scale.shape[:-2])
        super().__init__(batch, torch.Size(loc.shape[-1:]), validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """Σ_c π_c μ_c: [*batch, L]."""
        mean = (self.logits.exp()[..., None] * self.loc).sum(-2)
        return mean.expand(self.batch_shape + self.event_shape)

    @property
    def variance(self) -> Tensor:
        """Of each dimension: [*batch, L]."""
        spread = self.scale.square() + (self.loc - self.mean[..., None, :]).square()
        return (self.logits.exp()[..., None] * spread).sum(-2)

    def _log_prob(self, value: Tensor) -> Tensor:
        error = (value[..., None, :] - self.loc) / self.scale  # [*, C, L]
        return (self.logits - 0.5 * error.square().sum(-1) - self._log_norm()).logsumexp(-1)

    def _log_norm(self) -> Tensor:
        return self.scale.log().sum(-1) + 0.5 * self.loc.shape[-1] * math.log(2 * math.pi)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws with the gradient of the flow."""
        z = self.sample(sample_shape)
        return z + self._path(z) if torch.is_grad_enabled() else z

    def _draw(self, shape: torch.Size) -> Tensor:
        which = _choose(self.logits, shape[:-1])[..., None, None].expand(*shape[:-1], 1, shape[-1])

        def chosen(t: Tensor) -> Tensor:
            return t.expand(*shape[:-1], *t.shape[-2:]).gather(-2, which)[..., 0, :]

        noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        return chosen(self.loc) + chosen(self.scale) * noise

    def _path(self, z: Tensor) -> Tensor:
        """Zero, with the gradient of the draws z [*, L]."""
        with torch.no_grad():
            error = (z[..., None, :] - self.loc) / self.scale  # [*, C, L]
            log_joint = self.logits - 0.5 * error.square().sum(-1) - self._log_norm()
            share = log_joint.softmax(-1)[..., None]  # r_c
            by_logits = self._flow_of_weights(error)
        moved = share * ((self.loc - self.loc.detach()) + error * (self.scale - self.scale.detach()))
        turned = by_logits * (self.logits - self.logits.detach())[..., None, :]
        return moved.sum(-2) + turned.sum(-1)

    def _flow_of_weights(self, error: Tensor) -> Tensor:
        """dz_l / dlog π_c, [*, L, C], from (z − μ_c) / σ_c.

        With the weights w_cl = p(c | z_1 … z_{l−1}), F_l = Σ_c w_cl Φ(error_cl) keeps its value if

            dz_l = −Σ_c a_lc d(log π_c + Σ_{m<l} log 𝒩(z_m; μ_cm, σ_cm²)),    a_lc = w_cl (Φ(error_cl) − F_l) / F_l'

        where F_l' is the derivative by z_l.
        """
        log_each = -0.5 * error.square() - self.scale.log() - 0.5 * math.log(2 * math.pi)  # [*, C, L]
        before = log_each.cumsum(-1) - log_each
        log_w = (self.logits[..., None] + before).log_softmax(-2)
        log_slope = (log_w + log_each).logsumexp(-2, keepdim=True)
        # 1 − F in the place of F where that is the smaller: neither is then a difference of numbers near 1
        below = (log_w.exp() * torch.special.ndtr(error)).sum(-2, keepdim=True)
        sign = torch.where(below > 0.5, -torch.ones_like(below), torch.ones_like(below))
        tail = (log_w + torch.special.log_ndtr(sign * error) - log_slope).exp()
        a = sign * (tail - log_w.exp() * tail.sum(-2, keepdim=True))
        a = a.mT  # [*, L, C]
        through = (a @ (-error / self.scale)).tril(-1)  # Σ_c a_lc ∂log 𝒩_c / ∂z_m, [*, L, L]
        return -torch.linalg.solve_triangular(through, a, upper=False, unitriangular=True)


class Mixture(Broadcasting):
    """Σ_c π_c p_c(z), the components p_c being the last batch dimension of one distribution.

    As torch's MixtureSameFamily, but for its `expand`: the components stay C, whatever the batch shape.

    Args:
        logits: log π up to a constant, [C].
        components: a distribution of batch shape [C].

    >>> p = Mixture(torch.zeros(2), dist.Bernoulli(torch.tensor([[0.1, 0.1], [0.9, 0.9]])).to_event(1))
    >>> p.log_prob(torch.tensor([1.0, 1.0])).exp()
    tensor(0.4100)
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {"logits": constraints.real_vector}

    def __init__(self, logits: Tensor, components: Any, validate_args: bool | None = None) -> None:
        self.logits, self.components = logits.log_softmax(-1), components
        super().__init__(torch.Size(logits.shape[:-1]), components.event_shape, validate_args=validate_args)

    @property
    def support(self) -> Any:
        """That of the components."""
        return self.components.support

    @property
    def mean(self) -> Tensor:
        """Σ_c π_c E p_c: [*batch, *event]."""
        weights = self.logits.exp().reshape(-1, *[1] * len(self.event_shape))
        return (weights * self.components.mean).sum(0).expand(self.batch_shape + self.event_shape)

    def _log_prob(self, value: Tensor) -> Tensor:
        each = self.components.log_prob(value.unsqueeze(-1 - len(self.event_shape)))  # [*, C]
        return (self.logits + each).logsumexp(-1)

    def _draw(self, shape: torch.Size) -> Tensor:
        leading = shape[: len(shape) - len(self.event_shape)]
        which = _choose(self.logits, leading).reshape(*leading, *[1] * (len(self.event_shape) + 1))
        each = self.components.sample(leading)  # [*leading, C, *event]
        return each.take_along_dim(which, len(leading)).squeeze(len(leading))


def mixture(logits: Tensor, components: Any) -> Broadcasting:
    """The mixture of a distribution's last batch dimension, [C]: a `NormalMixture` where it is one."""
    base = components.base_dist if isinstance(components, dist.Independent) else components
    if type(base) is dist.Normal and components.event_dim == 1:
        return NormalMixture(logits, base.loc, base.scale)
    return Mixture(logits, components)
