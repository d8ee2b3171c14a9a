"""Small model functions without a guide, of every support and plate: a line buys the suite of derived guides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

F64 = torch.float64


class Story(NamedTuple):
    """A model of x [B, *event], what is derived for it, whether a gradient passes through all of its draws."""

    model: Callable[[Tensor], Any]
    printed: str
    event: tuple[int, ...] = ()
    pathwise: bool = True


def story(draw: Callable[[], Any], read: Callable[[Tensor], Tensor], **options: Any) -> Callable[[Tensor], None]:
    """z from a prior, x ~ 𝒩(read(z), 1)."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", draw(), **options)
            pyro.sample("x", dist.Normal(read(z).to(x.dtype), 1.0), obs=x)

    return model


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.get_default_dtype())


def ones(*shape: int) -> Tensor:
    return torch.ones(*shape, dtype=torch.get_default_dtype())


def chain(x: Tensor) -> None:
    """z_0 → z_1 → z_2, each seen by one element of x."""
    with pyro.plate("data", len(x)):
        z = number(0.0)
        for t in range(3):
            z = pyro.sample(f"z_{t}", dist.Normal(0.9 * z, 0.5))
            pyro.sample(f"x_{t}", dist.Normal(z, 0.3), obs=x[..., t])


def layers(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        top = pyro.sample("top", dist.Normal(0 * ones(2), 1.0).to_event(1))
        low = pyro.sample("low", dist.Normal(top.sum(-1, True) * ones(3), 0.5).to_event(1))
        pyro.sample("x", dist.Normal(low.sum(-1), 0.5), obs=x)


def collider(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        a = pyro.sample("a", dist.Normal(number(0.0), 1.0))
        b = pyro.sample("b", dist.Gamma(number(2.0), 2.0))
        pyro.sample("x", dist.Normal(a * b, 0.5), obs=x)


def clusters(x: Tensor) -> None:
    """c is summed over, and both of its children depend on each other by way of it."""
    with pyro.plate("data", len(x)):
        c = pyro.sample("c", dist.Categorical(logits=0 * ones(3)), infer={"enumerate": "parallel"})
        a = pyro.sample("a", dist.Normal(2.0 * c.to(x.dtype), 1.0))
        b = pyro.sample("b", dist.Normal(-1.0 * c.to(x.dtype), 1.0))
        pyro.sample("x", dist.Normal(ones(1) * a[..., None], 1.0).to_event(1), obs=x[..., :1])
        pyro.sample("y", dist.Normal(ones(1) * b[..., None], 1.0).to_event(1), obs=x[..., 1:])


def mixture(x: Tensor) -> None:
    """All is summed over."""
    with pyro.plate("data", len(x)):
        c = pyro.sample("c", dist.Categorical(logits=0 * ones(3)), infer={"enumerate": "parallel"})
        pyro.sample("x", dist.Normal(2.0 * c.to(x.dtype), 1.0), obs=x)


def labelled(x: Tensor) -> None:
    """The prior is a function of a label, the first element of x."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(2.0 * (x[..., 0] > 0).to(x.dtype), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x[..., 1])


def steps(x: Tensor) -> None:
    """A plate within the data plate, and a latent above it."""
    with pyro.plate("data", len(x), dim=-1):
        level = pyro.sample("level", dist.Normal(number(0.0), 1.0))
        with pyro.plate("steps", 4, dim=-2):
            z = pyro.sample("z", dist.LogNormal(level, 0.5))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x.mT)


def steps_inside(x: Tensor) -> None:
    """The data plate to the left of another one."""
    with pyro.plate("data", len(x), dim=-2):
        level = pyro.sample("level", dist.Normal(number(0.0), 1.0))  # [B, 1]
        with pyro.plate("steps", 4, dim=-1):
            z = pyro.sample("z", dist.Normal(level, 0.5 * ones(2, 1, 1)[0]))
            v = pyro.sample("v", dist.Dirichlet(ones(3)))
            pyro.sample("x", dist.Normal(z + v[..., 0], 0.5), obs=x)


def shared(x: Tensor) -> None:
    """Latents of the whole data set, of which two are in a plate."""
    theta = pyro.sample("theta", dist.Normal(number(3.0), 2.0))
    with pyro.plate("kinds", 2, dim=-1):
        rate = pyro.sample("rate", dist.Gamma(number(2.0), 1.0))
        w = pyro.sample("w", dist.Dirichlet(ones(3)))
    with pyro.plate("data", 100, subsample=torch.arange(len(x), device=x.device), dim=-1):
        z = pyro.sample("z", dist.Normal(theta, rate[..., 0, None] if rate.dim() > 1 else rate[0]))
        pyro.sample("x", dist.Normal(z, 0.2 + w[..., 0, 0, None] if w.dim() > 2 else 0.2 + w[0, 0]), obs=x)


def bounded(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Uniform(number(-2.0), 3.0))
        s = pyro.sample("s", dist.HalfCauchy(number(0.5)))
        pyro.sample("x", dist.Normal(z, 0.1 + s), obs=x)


STORIES: dict[str, Story] = {
    "number": Story(story(lambda: dist.Normal(number(0.0), 1.0), lambda z: z), "q(z | x)"),
    "far away": Story(story(lambda: dist.Normal(number(100.0), 5.0), lambda z: z - 100), "q(z | x)"),
    "vector": Story(story(lambda: dist.Normal(0 * ones(3), 1.0).to_event(1), lambda z: z.sum(-1)), "q(z | x)"),
    "matrix": Story(story(lambda: dist.Normal(0 * ones(2, 3), 1.0).to_event(2), lambda z: z.sum((-1, -2))), "q(z | x)"),
    "heavy tails": Story(story(lambda: dist.StudentT(number(2.0)), lambda z: z), "q(z | x)"),
    "positive": Story(story(lambda: dist.Gamma(2 * ones(2), 1.0).to_event(1), lambda z: z.sum(-1)), "q(z | x)"),
    "above": Story(story(lambda: dist.Pareto(number(2.0), 3.0), lambda z: z), "q(z | x)"),
    "bounded": Story(bounded, "q(z | x) q(s | z, x)"),
    "simplex": Story(story(lambda: dist.Dirichlet(2 * ones(3)), lambda z: z[..., 0]), "q(z | x)"),
    "two simplices": Story(
        story(lambda: dist.Dirichlet(2 * ones(2, 3)).to_event(1), lambda z: z[..., 0].sum(-1)), "q(z | x)"
    ),
    "ordered": Story(
        story(
            lambda: dist.TransformedDistribution(
                dist.Normal(0 * ones(3), 1.0).to_event(1), [dist.transforms.OrderedTransform()]
            ),
            lambda z: z.sum(-1),
        ),
        "q(z | x)",
    ),
    "correlations": Story(story(lambda: dist.LKJCholesky(3, ones(1)[0]), lambda z: z[..., 1, 0]), "q(z | x)"),
    "sphere": Story(story(lambda: dist.ProjectedNormal(ones(3)), lambda z: z[..., 0]), "q(z | x)"),
    "coins": Story(
        story(lambda: dist.Bernoulli(0.5 * ones(3)).to_event(1), lambda z: z.sum(-1)), "q(z | x)", pathwise=False
    ),
    "categories": Story(story(lambda: dist.Categorical(ones(4)), lambda z: z), "q(z | x)", pathwise=False),
    "trials": Story(story(lambda: dist.Binomial(5, 0.5 * ones(1)[0]), lambda z: z), "q(z | x)", pathwise=False),
    "one-hot": Story(story(lambda: dist.OneHotCategorical(ones(3)), lambda z: z[..., 0]), "q(z | x)", pathwise=False),
    "counts": Story(story(lambda: dist.Poisson(number(3.0)), lambda z: z), "q(z | x)", pathwise=False),
    "chain": Story(chain, "q(z_2 | x) q(z_1 | z_2, x) q(z_0 | z_1, x)", (3,)),
    "layers": Story(layers, "q(low | x) q(top | low)"),
    "collider": Story(collider, "q(a | x) q(b | a, x)"),
    "clusters": Story(clusters, "q(a | x) q(b | a, x)", (2,)),
    "labelled": Story(labelled, "q(z | x)", (2,)),
    "steps": Story(steps, "q(z | x) q(level | z)", (4,)),
    "steps inside": Story(steps_inside, "q(z | x) q(level | z) q(v | z, x)", (4,)),
    "shared": Story(shared, "q(theta) q(rate) q(w) q(z | x)"),
}
