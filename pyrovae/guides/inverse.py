"""Which latents an approximate posterior draws given which: the faithful inverse of a model's graph."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping

DATA = ""  # the data as one vertex; no site has this name


def faithful_inverse(
    parents: Mapping[str, Collection[str]], latent: Collection[str], summed: Collection[str] = ()
) -> dict[str, tuple[str, ...]]:
    """The latents in an order to draw them in, each with what it is drawn given: DATA, latents before it, or both.

    Every independence that the order claims, q(z_i | those) = q(z_i | x, all before it), holds in the posterior of the
    model, and none of the conditions can be left out. Variables are eliminated from the moral graph, a parent before
    its children and among those the one that joins fewest pairs; drawn is the other way round, children before parents.

    Args:
        parents: by name of a site, in the model's order, the sites and DATA that its distribution is a function of.
        latent: names of those to be drawn.
        summed: names of latents that the model sums over, which are eliminated first. All others are data.

    Reference: Webb et al., "Faithful inversion of generative models for effective amortized inference", 2018.

    >>> faithful_inverse({"z2": [], "z1": ["z2"], "x": ["z1"]}, latent=["z1", "z2"])
    {'z1': ('',), 'z2': ('z1',)}
    >>> faithful_inverse({"z1": [], "z2": [], "x": ["z1", "z2"]}, latent=["z1", "z2"])
    {'z1': ('',), 'z2': ('', 'z1')}
    """
    hidden = {*latent, *summed}
    neighbours: dict[str, set[str]] = {n: set() for n in (DATA, *hidden)}

    def join(names: Collection[str]) -> None:
        for a, b in itertools.permutations(set(names), 2):
            neighbours[a].add(b)

    def missing(name: str) -> int:
        return sum(b not in neighbours[a] for a, b in itertools.combinations(neighbours[name], 2))

    def eliminate(name: str) -> set[str]:
        around = neighbours.pop(name)
        for other in around:
            neighbours[other].discard(name)
        join(around)
        return around

    for child, its_parents in parents.items():
        join([n if n in hidden else DATA for n in (child, *its_parents)])
    for name in sorted(summed, key=list(parents).index):
        eliminate(name)
    order, rest = list(parents), set(latent)
    inverse: dict[str, tuple[str, ...]] = {}
    while rest:
        free = [n for n in order if n in rest and not rest & set(parents[n])]
        name = min(reversed(free), key=missing)  # the later one, so that what is alike is drawn in the model's order
        inverse[name] = tuple(eliminate(name))
        rest.discard(name)
    drawn = list(reversed(inverse))
    return {n: tuple(sorted(inverse[n], key=[DATA, *drawn].index)) for n in drawn}
