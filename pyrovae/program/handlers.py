"""Effect handlers: other values for the sites of a program."""

from __future__ import annotations

from typing import Any

from pyro.poutine.messenger import Messenger
from pyro.poutine.uncondition_messenger import UnconditionMessenger
from torch import Tensor


class Values(Messenger):
    """Gives latent sites these values, without observing them; replay, for values that were reshaped."""

    def __init__(self, values: dict[str, Tensor]) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.values and not msg["is_observed"]:
            msg["value"], msg["done"] = self.values[msg["name"]], True


class Unobserved(UnconditionMessenger):
    """Draws observed sites, and leaves `pyro.deterministic` ones, which Pyro writes as observations, as they are."""

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["infer"].get("_deterministic"):
            super()._pyro_sample(msg)


class ObservedAtMean(Unobserved):
    """Gives observed sites their distribution's mean, without a draw."""

    def _pyro_sample(self, msg: Any) -> None:
        super()._pyro_sample(msg)
        if msg["infer"].get("was_observed"):
            msg["value"], msg["done"] = msg["fn"].mean, True


class AtMean(Messenger):
    """Gives each latent site its distribution's mean, where that is a value the site could take."""

    def _pyro_sample(self, msg: Any) -> None:
        support = getattr(msg["fn"], "support", None)
        if msg["is_observed"] or msg["done"] or getattr(support, "is_discrete", True):
            return
        try:
            msg["value"], msg["done"] = msg["fn"].mean, True
        except NotImplementedError:
            return
