"""Effect handlers: other values for the sites of a program."""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.uncondition_messenger import UnconditionMessenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import biject_to

from .checks import is_sphere
from .enumeration import check_marked, is_marked, support
from .sites import IMPROPER, data_frames, family


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
    """Keeps the mean of every observed site, or a draw where it has none, as infer["mean"] for what reads the trace.

    Sites after it get its value in the data, such as a label, where `given` says that these are at hand; else its mean,
    or a draw from what is discrete, whose mean is no value of it.
    """

    def __init__(self, given: bool = False) -> None:
        super().__init__()
        self.given = given

    def _pyro_sample(self, msg: Any) -> None:
        data = msg["value"]
        super()._pyro_sample(msg)
        if not msg["infer"].get("was_observed"):
            return
        mean, discrete = mean_of(msg["fn"]), getattr(msg["fn"].support, "is_discrete", False)
        drawn = msg["fn"]() if mean is None or (discrete and not self.given) else mean
        msg["infer"] = msg["infer"] | {"mean": drawn if mean is None else mean}
        msg["value"], msg["done"] = data if self.given else drawn, True


def mean_of(distribution: Any) -> Tensor | None:
    """None where there is none: torch's Categorical says NaN."""
    try:
        return None if family(distribution) == "Categorical" else distribution.mean
    except NotImplementedError:
        return None


class ImproperPriorError(ValueError):
    """A draw was wanted of a prior that has none."""


class Proper(Messenger):
    """Refuses to draw a latent from an improper prior. Raises ImproperPriorError."""

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["done"] and not msg["is_observed"] and family(msg["fn"]) == IMPROPER:
            raise ImproperPriorError(
                f"data are drawn from z ~ p(z), and the prior of site {msg['name']!r} is improper ({IMPROPER}), "
                "which nothing can be drawn from; decode values of your own, such as codes of data: pv.decode(vae, z)"
            )


class StandIns(Messenger):
    """Gives latents with an improper prior some value that they can take, where any will do; numbers as those of x."""

    def __init__(self, like: Tensor) -> None:
        super().__init__()
        self.like = like

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["done"] and not msg["is_observed"] and family(msg["fn"]) == IMPROPER:
            msg["value"], msg["done"] = stand_in(msg["fn"], self.like), True


def stand_in(distribution: Any, like: Tensor) -> Tensor:
    """A draw; of an improper distribution a standard normal one, brought to its support, its numbers as those of x."""
    if family(distribution) != IMPROPER:
        return distribution.sample()
    shape, to_support = distribution.batch_shape + distribution.event_shape, biject_to(distribution.support)
    dtype = like.dtype if like.is_floating_point() else None
    return to_support(torch.randn(to_support.inverse_shape(shape), dtype=dtype, device=like.device))


class AtMean(Messenger):
    """Gives each latent site its distribution's mean, or its mode on a sphere, where these are values it could take."""

    def _pyro_sample(self, msg: Any) -> None:
        support = getattr(msg["fn"], "support", None)
        if msg["is_observed"] or msg["done"] or getattr(support, "is_discrete", True):
            return
        try:
            msg["value"], msg["done"] = msg["fn"].mode if is_sphere(support) else msg["fn"].mean, True
        except NotImplementedError:
            return


class Detached(Messenger):
    """Draws without a path back to the parameters that they were drawn with, for score-function gradients."""

    def _pyro_post_sample(self, msg: Any) -> None:
        if not msg["is_observed"]:
            msg["value"] = msg["value"].detach()


class Enumerated(Messenger):
    """Gives marked latent sites every value of their support in turn, along the particles.

    Row r of K·S₁·S₂… particles is one draw of the other sites with one combination of values, the last site's
    changing fastest. A draw is one for all values of the sites that are enumerated after it.

    Args:
        which: "guide" or "model".
        sizes: size of the support by name, of the sites to enumerate.
        others: names of sites that have their values from elsewhere; None to enumerate none.

    Attributes:
        found: sizes of marked sites that are not in `sizes`, or of another size there.
        met: names in `sizes` as the program came to them, enumerated here or with values from elsewhere.
        shared: rows that have a draw in common, at the most.
    """

    def __init__(self, which: str, sizes: dict[str, int], others: set[str] | None) -> None:
        super().__init__()
        self.which, self.sizes, self.others = which, sizes, others
        self.laid_out(1, None)
        self.found: dict[str, int] = {}
        self.met: list[str] = []
        self.drawn: set[str] = set()
        self.shared = 1

    def laid_out(self, rows: int, particle: int | None) -> None:
        """How many particles there are, and the dimension of their plate; None where they are K·B rows, or one."""
        self.rows, self.particle = rows, particle

    def _pyro_sample(self, msg: Any) -> None:
        name = msg["name"]
        if name in self.sizes and (msg["done"] or is_marked(msg)):
            self.met.append(name)
        if msg["is_observed"] or msg["done"] or self.others is None or name in self.others:
            return
        if not is_marked(msg):
            self.drawn.add(name)
            return
        check_marked(msg)
        values = support(name, msg["fn"])  # [S, *event]
        if self.sizes.get(name) not in (len(values), 1):  # 1: the first value alone
            self.found[name] = len(values)
            return
        names = list(self.sizes)
        after = math.prod(self.sizes[n] for n in names[names.index(name) + 1 :])
        row = torch.arange(self.rows, device=values.device) // after % self.sizes[name]
        batch, event = msg["fn"].batch_shape, msg["fn"].event_shape
        at = [1] * len(batch)
        if self.particle is None:  # [K·B] rows, or one particle
            data = data_frames(msg)[0].dim
            row = row.repeat_interleave(batch[data] // self.rows)
            at[data] = len(row)
        else:
            at[self.particle] = self.rows
        msg["value"], msg["done"] = values[row].reshape(*at, *event).expand(batch + event), True

    def _pyro_post_sample(self, msg: Any) -> None:
        later = math.prod(self.sizes.values()) // math.prod(self.sizes[n] for n in self.met)
        if later == 1 or msg["name"] not in self.drawn or site_is_subsample(msg):
            return
        self.shared = max(self.shared, later)
        value, event = msg["value"], msg["fn"].event_dim
        dim, one = self.particle, 1  # rows of one particle
        if dim is None:
            dim = data_frames(msg)[0].dim
            one = value.shape[dim - event] // self.rows
        first = torch.arange(self.rows, device=value.device) // later * later
        index = first[:, None] * one + torch.arange(one, device=value.device)
        msg["value"] = value.index_select(dim - event, index.flatten())
