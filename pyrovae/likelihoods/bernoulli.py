"""Likelihoods of pixels: in {0, 1}, in [0, 1], and as counts of coins."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any, cast

import pyro.distributions as dist
import torch
import torch.nn as nn
from torch import Tensor

from .base import Likelihood


def _log_odds(p: Tensor) -> Tensor:
    """Of probabilities that are moved away from 0 and 1, from where no decoder comes back in a few steps."""
    return p.clamp(0.01, 0.99).logit()


class _BernoulliLogProb(torch.autograd.Function):
    """x l − log(1 + e^l), in one pass forward and, by x − σ(l), one backward."""

    generate_vmap_rule = True

    @staticmethod
    def forward(logits: Tensor, x: Tensor) -> Tensor:
        softplus = torch.logaddexp(logits, logits.new_zeros(()))
        if torch._C._are_functorch_transforms_active():
            return x * logits - softplus
        return softplus.neg_().addcmul_(x, logits)  # in place: a fresh tensor costs more than the arithmetic

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None]:
        (logits, x), (grad,) = ctx.saved_tensors, grads
        if torch.is_grad_enabled() or torch._C._are_functorch_transforms_active():
            by_logits = (x - logits.sigmoid()) * grad
        else:
            by_logits = logits.sigmoid().neg_().add_(x)
            try:
                by_logits.mul_(grad)
            except RuntimeError:  # a batch of gradients
                by_logits = by_logits * grad
        return by_logits, logits * grad if ctx.needs_input_grad[1] else None


_BernoulliLogProb.forward.__dict__["__signature__"] = inspect.signature(
    _BernoulliLogProb.forward
)  # else found in every call


class _Bernoulli(dist.Bernoulli):
    """torch's distribution with a faster density."""

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        logits = self.logits
        if value.requires_grad or logits.shape[logits.dim() - value.dim() :] != value.shape:
            logits, value = torch.broadcast_tensors(logits, value)
        return _BernoulliLogProb.apply(logits, value)


class Bernoulli(Likelihood):
    """p(x | z) = Π_d p_d^x_d (1 − p_d)^(1 − x_d), the decoder returning logits; x in {0, 1}.

    Args:
        network: a decoder from [L] to the event shape of x.
    """

    def start(self, mean: Tensor) -> Tensor:
        """log p / (1 − p)."""
        return _log_odds(mean)

    def distribution(self, y: Tensor, event_dim: int) -> dist.TorchDistribution:
        """Bernoulli with logits y."""
        return _Bernoulli(logits=y)


class _ContinuousBernoulli(dist.ContinuousBernoulli):
    """torch's distribution, with its normaliser and mean taken from the logit: finite and smooth for every logit.

    torch goes through the probability, which is 1 in float32 from logits of 17 on: log C is then infinite, and the mean
    stays at 0.94. Around 1/2 torch's mean is off by 0.007 in float32.
    """

    @property
    def mean(self) -> Tensor:
        """1 / (1 − e^−l) − 1 / l, l the logit; its series around 0."""
        logits = cast(Tensor, self.logits)
        size = logits.abs()
        near = size < 1
        safe = torch.where(near, torch.ones_like(size), size)  # keeps the unused branch's gradient finite
        far = logits.sign() * (-0.5 - 1 / safe - 1 / torch.expm1(-safe))
        small = torch.where(near, logits, torch.zeros_like(logits))
        square = small.square()
        series = small * (
            1 / 12 - square * (1 / 720 - square * (1 / 30240 - square * (1 / 1209600 - square / 47900160)))
        )
        return 0.5 + torch.where(near, series, far)

    def _cont_bern_log_norm(self) -> Tensor:
        # log C = log(2 artanh(1 − 2p) / (1 − 2p)) = log(l / tanh(l / 2)), l the logit; its limit at 0 is log 2.
        size = self.logits.abs()
        near = size < 1e-2
        safe = torch.where(near, torch.ones_like(size), size)  # keeps the unused branch's gradient finite
        far = safe.log() + torch.log1p((-safe).exp()) - (-torch.expm1(-safe)).log()
        return torch.where(near, math.log(2) + size.square() / 12, far)


class ContinuousBernoulli(Likelihood):
    """p(x | z) = Π_d C(p_d) p_d^x_d (1 − p_d)^(1 − x_d), the decoder returning logits; x in [0, 1].

    The normaliser C(p) = 2 artanh(1 − 2p) / (1 − 2p) makes the Bernoulli's formula a density for grey values.
    Reference: Loaiza-Ganem and Cunningham, "The continuous Bernoulli", 2019.

    Args:
        network: a decoder from [L] to the event shape of x.
    """

    def distribution(self, y: Tensor, event_dim: int) -> dist.TorchDistribution:
        """Continuous Bernoulli with logits y."""
        return _ContinuousBernoulli(logits=y)


class _Binomial(dist.Binomial):
    """torch's distribution, drawn as n coins a count: torch.binomial is not there on every device."""

    def __init__(self, coins: int, logits: Tensor) -> None:
        self.coins = coins
        super().__init__(coins, logits=logits)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = self._get_checked_instance(_Binomial, _instance)
        new.coins = self.coins
        return super().expand(batch_shape, new)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        probs = cast(Tensor, self.probs)
        heads = torch.zeros(shape, dtype=probs.dtype, device=probs.device)
        for _ in range(self.coins):  # one at a time: all together are n times the memory
            heads += torch.rand_like(heads) < probs
        return heads


class Binomial(Likelihood):
    """p(x | z) = Π_d C(n, x_d) p_d^x_d (1 − p_d)^(n − x_d), the decoder returning logits; x a count in 0..n.

    Args:
        network: a decoder from [L] to the event shape of x.
        total_count: n, the largest count; None for that of the data that a model is built for, or else 16, as for the
            digits with their 17 grey levels.
    """

    def __init__(self, network: nn.Module, total_count: int | None = None) -> None:
        super().__init__(network)
        total_count = 16 if total_count is None else total_count
        if total_count < 1:
            raise ValueError(f"Binomial expects total_count of at least 1, got {total_count}")
        self.total_count = total_count

    @classmethod
    def options_for(cls, data: Any) -> dict[str, Any]:
        """total_count, where the data are counts 0..levels."""
        return {"total_count": data.levels} if data.levels else {}

    def start(self, mean: Tensor) -> Tensor:
        """log p / (1 − p), p the mean's share of n."""
        return _log_odds(mean / self.total_count)

    def distribution(self, y: Tensor, event_dim: int) -> dist.TorchDistribution:
        """Binomial with n = total_count and logits y."""
        return _Binomial(self.total_count, logits=y)
