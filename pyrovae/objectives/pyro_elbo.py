"""Both ways with Pyro: its ELBOs as objectives here, our programs under its SVI."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pyro
import torch
import torch.nn as nn
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ..program import GenerativeProgram
from ..program.sites import DATA
from .base import Estimate, Objective
from .weights import elbo_of


class _DataPlate(Messenger):
    """Reads the full size of the data plate as a program runs; a compiled one runs once."""

    size: int | None = None

    def _pyro_post_sample(self, msg: Any) -> None:
        for frame in msg["cond_indep_stack"]:
            if frame.name == DATA:
                self.size = frame.full_size or frame.size


OF_THE_ELBO = pyro.infer.Trace_ELBO, pyro.infer.TraceGraph_ELBO, pyro.infer.TraceEnum_ELBO


class PyroELBO(Objective):
    """A `pyro.infer` ELBO as an objective: it trains as Pyro would, without our guarantees.

    Pyro's loss is that of the whole data set, estimated from a batch under its own plate scales; the bound here is
    −loss / N for every datum, N the full size of the data plate, which is B where it is not subsampled. One without a
    `differentiable_loss` (RenyiELBO, TraceGraph_ELBO) has its `loss_and_grads` called, and the surrogate is linear in
    the parameters of the program, with that gradient.

    Args:
        elbo: a `pyro.infer` ELBO object.

    Raises:
        ValueError: for what is no such object, for TraceTailAdaptive_ELBO, whose loss is infinite, and for
            ReweightedWakeSleep, which has two; in use, for one without a `differentiable_loss` and a program that is
            no torch module.
    """

    def __init__(self, elbo: Any) -> None:
        super().__init__()
        if not isinstance(elbo, pyro.infer.ELBO):
            got = getattr(elbo, "__name__", type(elbo).__name__)
            raise ValueError(f"PyroELBO expects an object such as pyro.infer.Trace_ELBO(), got {got}; build one")
        if isinstance(elbo, pyro.infer.ReweightedWakeSleep):
            raise ValueError(
                "pyro.infer.ReweightedWakeSleep has two losses and neither is a bound; use pyrovae.objectives.WakeSleep"
            )
        if isinstance(elbo, pyro.infer.TraceTailAdaptive_ELBO):
            raise ValueError(
                "pyro.infer.TraceTailAdaptive_ELBO has gradients and no loss: it gives infinity for it, so there is no "
                "bound to report; use pyrovae.objectives.IWAE or ELBO"
            )
        self.elbo, self.plate = elbo, _DataPlate()

    @property
    def particles(self) -> int:
        """Pyro's num_particles."""
        return self.elbo.num_particles

    def bound_of(self, log_weight: Tensor, log_mass: Tensor) -> Tensor | None:
        """The ELBO, for those that are one."""
        return elbo_of(self, log_weight, log_mass) if isinstance(self.elbo, OF_THE_ELBO) else None

    def forward(self, vae: GenerativeProgram, x: Tensor) -> Estimate:
        """−loss / N, [B]."""
        with self.plate:
            loss = self._loss(vae, x)
        bound = (-loss / (self.plate.size or len(x))).expand(len(x))
        return Estimate(bound.detach(), bound)

    def _loss(self, vae: GenerativeProgram, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():  # some of them insist on a gradient otherwise
            return torch.as_tensor(self.elbo.loss(vae.model, vae.guide, x), dtype=x.dtype, device=x.device)
        if hasattr(self.elbo, "differentiable_loss"):
            return self.elbo.differentiable_loss(vae.model, vae.guide, x)
        return self._with_gradients(vae, x)

    def _with_gradients(self, vae: GenerativeProgram, x: Tensor) -> Tensor:
        """The loss, with the gradient that `loss_and_grads` leaves at the parameters."""
        if not isinstance(vae, nn.Module):
            raise ValueError(
                f"pyro.infer.{type(self.elbo).__name__} leaves gradients at the parameters of a torch module, got a "
                f"{type(vae).__name__}; wrap plain functions in pv.Program(model, guide)"
            )
        parameters = list(vae.parameters())
        before = [p.grad for p in parameters]
        try:
            for p in parameters:
                p.grad = None
            with pyro.get_param_store().scope():  # these have gradients for what is in a param store alone
                loss = x.new_tensor(self.elbo.loss_and_grads(*to_pyro(vae), x))
            gradients = [p.grad for p in parameters]
        finally:
            for p, g in zip(parameters, before, strict=True):
                p.grad = g
        reached = [(p, g) for p, g in zip(parameters, gradients, strict=True) if g is not None]
        return loss + sum(((p - p.detach()) * g).sum() for p, g in reached)


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
