"""Both ways with Pyro: its ELBOs as objectives here, our programs under its SVI."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pyro
import torch
from torch import Tensor

from ..program import GenerativeProgram
from .base import Estimate, Objective


class PyroELBO(Objective):
    """A `pyro.infer` ELBO as an objective: it trains as Pyro would, without our guarantees.

    Pyro's loss is that of a whole batch under its own plate scales; the bound here is −loss / B for every datum.

    Args:
        elbo: a `pyro.infer` ELBO object with a `differentiable_loss`.

    Raises:
        ValueError: for one without, such as RenyiELBO, and for TraceTailAdaptive_ELBO, whose loss is infinite.
    """

    def __init__(self, elbo: Any) -> None:
        super().__init__()
        if not hasattr(type(elbo), "differentiable_loss"):
            raise ValueError(
                f"pyro.infer.{type(elbo).__name__} has no differentiable_loss; use pyrovae.objectives.IWAE or ELBO"
            )
        if isinstance(elbo, pyro.infer.TraceTailAdaptive_ELBO):
            raise ValueError(
                "pyro.infer.TraceTailAdaptive_ELBO has gradients and no loss: it gives infinity for it, so there is no "
                "bound to report; use pyrovae.objectives.IWAE or ELBO"
            )
        self.elbo = elbo

    def forward(self, vae: GenerativeProgram, x: Tensor) -> Estimate:
        """−loss / B, [B]."""
        if torch.is_grad_enabled():
            mean = -self.elbo.differentiable_loss(vae.model, vae.guide, x) / len(x)
        else:  # some of them insist on a gradient otherwise
            mean = -torch.as_tensor(self.elbo.loss(vae.model, vae.guide, x), dtype=x.dtype, device=x.device) / len(x)
        bound = mean.expand(len(x))
        return Estimate(bound.detach(), bound)


_names = (f"pyrovae{n}" for n in itertools.count())


def to_pyro(vae: Any) -> tuple[Callable[[Tensor], Any], Callable[[Tensor], Any]]:
    """(model, guide) for `pyro.infer.SVI`, with the parameters of `vae` registered in Pyro's param store.

    Every call takes a fresh name: two modules under one name would share it, and the second would never train.
    They are registered after each run, in which those of a `Program` come into being.

    >>> import pyro, pyrovae as pv
    >>> data = pv.data.load("digits")
    >>> model, guide = pv.to_pyro(pv.models.VAE.build(data))
    >>> svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 1e-3}), pyro.infer.Trace_ELBO())
    >>> svi.step(data.train[:10]) > 0
    True
    """
    name = next(_names)

    def model(x: Tensor) -> Any:
        value = vae.model(x)
        pyro.module(name, vae)
        return value

    def guide(x: Tensor) -> Any:
        value = vae.guide(x)
        pyro.module(name, vae)
        return value

    return model, guide
