"""A picture of each model: what it makes, or what it has found."""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.figure import Figure

import pyrovae as pv
from pyrovae import plots


def samples(vae: Any, data: pv.data.Dataset) -> Figure:
    """From the prior."""
    return plots.samples(vae, 40, columns=20, like=data.test)


def classes(vae: Any, data: pv.data.Dataset) -> Figure:
    """Every column a class, every row a style."""
    rows, c = 4, data.classes
    like = data.test[:1].repeat(rows * c, 1)
    like[:, 0] = torch.arange(c).repeat(rows)
    z = torch.randn(rows, 1, vae.prior.latent, generator=torch.Generator().manual_seed(0)).expand(-1, c, -1)
    known = {"y_unobserved": torch.nn.functional.one_hot(like[:, 0].long(), c).float()}
    given = {"z": z.flatten(0, 1)} | (known if hasattr(vae, "classifier") else {})
    made = pv.decode(vae, given, like=like)
    x = made if isinstance(made, torch.Tensor) else made["x"]
    return plots.images(x, columns=c, title="E[x | z, y]: a column for each class y, a row for each style z")


def clusters(vae: Any, data: pv.data.Dataset) -> Figure:
    """The means of the clusters, decoded."""
    x = vae.likelihood(vae.prior.loc).mean.detach()
    return plots.images(x, columns=len(x), title="E[x | z] at the middle of each cluster")


def halves(vae: Any, data: pv.data.Dataset) -> Figure:
    """What the upper half says of the lower one."""
    x = data.test[:20].clone()
    x[:, :, x.shape[2] // 2 :] = torch.nan
    return plots.reconstructions(vae, x, columns=20)


def forecasts(vae: Any, data: pv.data.Dataset) -> Figure:
    """Series, and their reconstructions, which go on behind the end."""
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    x = data.test[:6]
    made = pv.reconstruct(vae, x)
    for ax, seen, y in zip(figure.subplots(2, 3, sharex=True, sharey=True).flat, x, made, strict=True):
        for d, colour in enumerate(("tab:blue", "tab:orange")):
            ax.plot(seen[:, d], "o", color=colour, markersize=3)
            ax.plot(y[:, d], color=colour)
    figure.suptitle("Series (dots), and E[x | z] (lines), which goes on behind their end")
    return figure


def words(vae: Any, data: pv.data.Dataset) -> Figure:
    """The topics as the shares of their words."""
    x = vae.topics.words.detach()
    span = 0.0, float(x.max())
    return plots.images(x, columns=len(x), value_range=span, title="Each topic: how likely each of its words is")


def cells(vae: Any, data: pv.data.Dataset) -> Figure:
    """Where cells of each kind lie."""
    return plots.latent_map(vae, data.test, data.labels["test"], site="z")


def codes(vae: Any, data: pv.data.Dataset) -> Figure:
    """Data and what comes back of them."""
    return plots.reconstructions(vae, data.test[:20], columns=20)


def walks(vae: Any, data: pv.data.Dataset) -> Figure:
    """What each number of a code changes."""
    return plots.traversal(vae, data.test)
