"""Mistakes that the sites of a program show: each a small function from facts to findings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.distributions import constraints

from ..program import family, read_site
from ..program.checks import (
    check_finite,
    check_latent,
    check_something_observed,
    check_support,
    data_size,
    plain_support,
    unshared,
)
from ..program.sites import DATA, data_frames
from .facts import Facts, sites_of
from .finding import Finding, of_refusal

MODEL_AND_GUIDE = ("model", "guide")


def refused(check: Callable[..., Any], *args: Any) -> Iterator[Finding]:
    """What a check of the library refuses."""
    try:
        check(*args)
    except ValueError as error:
        yield of_refusal(error)


def numbers(facts: Facts) -> Iterator[Finding]:
    """NaN and infinity in the data, of all rows."""
    yield from refused(check_finite, "check", facts.given, facts.vae)


def runs(facts: Facts) -> Iterator[Finding]:
    """Whatever guide and model raise on a batch: event shapes, name clashes, forgotten to_event, plates."""
    _ = facts.guide, facts.model  # run here
    yield from facts.errors


def guide_observes(facts: Facts) -> Iterator[Finding]:
    """An obs= in the guide."""
    for name, site in sites_of(facts.guide):
        if site["is_observed"]:
            message = f"the guide observes site {name!r}, and it has latents alone: q(z | x)"
            yield Finding("guide observes", name, message, "leave the site out of the guide; obs= belongs in the model")


def shared(facts: Facts) -> Iterator[Finding]:
    """Latents that model and guide do not share."""
    if not (facts.model and facts.guide):
        return
    for name, message in unshared(facts.model, facts.posterior):
        found = of_refusal(message, "missing in guide" if name in facts.prior else "missing in model")
        remedy = found.remedy
        if name in facts.prior:
            remedy = "add it to the guide, or give it obs= if it is data"
        elif name in facts.likelihood:
            remedy = "take it out of the guide: the model observes it"
        yield Finding(found.kind, name, found.message, remedy)


def observed(facts: Facts) -> Iterator[Finding]:
    """A model that observes nothing."""
    if facts.model:
        yield from refused(check_something_observed, facts.model)


def data_plate(facts: Facts) -> Iterator[Finding]:
    """A model without a data plate."""
    if facts.model:
        yield from refused(data_size, facts.model)


def sites(facts: Facts) -> Iterator[Finding]:
    """What is refused of a single site: scales, loops, plates of another size, dimensions in no plate, data rows."""
    for which in MODEL_AND_GUIDE:
        seen: set[str] = set()
        for _, site in sites_of(getattr(facts, which)):
            for found in refused(_read, site, len(facts.x), which):
                if not (found.kind == "loop" and "loop" in seen):  # a loop has a site for each of its rows
                    yield found
                seen.add(found.kind)


def _read(site: Any, rows: int, which: str) -> None:
    found = read_site(site, (1, rows), None, which)
    if site["value"] is not None:
        found.reduce(torch.zeros((), device=site["value"].device).expand(site["fn"].batch_shape))  # the shape alone


def plates(facts: Facts) -> Iterator[Finding]:
    """Plates of one name that are two in model and guide."""
    model, guide = (_plates(getattr(facts, which)) for which in MODEL_AND_GUIDE)
    for name in model.keys() & guide.keys():
        (size, rows, dim), (other, their, place) = model[name], guide[name]
        if dim != place:
            message = f"plate {name!r} has dim={dim} in the model and dim={place} in the guide"
            yield Finding("plate", None, message, f"write dim={dim} in both")
        elif rows != their or size != other:
            message = f"plate {name!r} has size {size} in the model and size {other} in the guide"
            remedy = "give both the same size, and the same subsample_size"
            # where the rows agree, densities here are those of the rows; the size is read from the model alone
            yield Finding("plate", None, message, remedy, fatal=rows != their)


def _plates(trace: Any) -> dict[str, tuple[int, int, int]]:
    frames = [f for _, s in sites_of(trace) for f in s["cond_indep_stack"] if f.vectorized]
    return {f.name: (f.full_size or f.size, f.size, f.dim) for f in frames}


def latent_events(facts: Facts) -> Iterator[Finding]:
    """Latents with events of two shapes."""
    for name in facts.prior.keys() & facts.posterior.keys():
        p, q = (list(s[name]["fn"].event_shape) for s in (facts.prior, facts.posterior))
        if p != q:
            message = f"site {name!r} has events of shape {p} in the model and {q} in the guide"
            yield Finding("latent shape", name, message, "give prior and posterior the same latent size and to_event")


def supports(facts: Facts) -> Iterator[Finding]:
    """Priors and posteriors over other values."""
    for name in facts.prior.keys() & facts.posterior.keys():
        p, q, value = facts.prior[name]["fn"], facts.posterior[name]["fn"], facts.posterior[name]["value"]
        found = list(refused(check_latent, name, p, q, value))
        if not found and _wider(p, q):  # no draw of this one batch was outside
            message = f"site {name!r} is {family(p)} in the model and {family(q)} in the guide, over all real numbers"
            found = [Finding("support", name, message, "give prior and posterior the same values")]
        yield from found


def _wider(p: Any, q: Any) -> bool:
    """Whether q is over the real line, and p not."""
    try:
        p, q = plain_support(p.support), plain_support(q.support)
    except NotImplementedError:
        return False
    narrow = constraints.positive, constraints.nonnegative, constraints.unit_interval, constraints.simplex
    return q is constraints.real and (p in narrow or isinstance(p, constraints.interval | constraints.greater_than))


def data_support(facts: Facts) -> Iterator[Finding]:
    """Data that a likelihood gives no density to: of the batch, and of all rows where x itself is observed."""
    for name, site in facts.likelihood.items():
        found = list(refused(check_support, name, site["fn"], site["value"]))
        rows = len(facts.x)
        if not found and site["value"] is facts.x and rows < len(facts.given):
            for start in range(rows, len(facts.given), rows):
                more = facts.given[(torch.arange(rows) + start) % len(facts.given)].to(facts.x)  # as many, filled up
                found = list(refused(check_support, name, site["fn"], more))
                if found:
                    break
        yield from found


def locality(facts: Facts) -> Iterator[Finding]:
    """Latents inside the data plate on one side alone."""
    for name in facts.prior.keys() & facts.posterior.keys():
        inside = {w: bool(data_frames(s[name])) for w, s in (("model", facts.prior), ("guide", facts.posterior))}
        if inside["model"] != inside["guide"]:
            one, other = ("model", "guide") if inside["model"] else ("guide", "model")
            message = f"site {name!r} is inside plate {DATA!r} in the {one} and outside it in the {other}"
            remedy = "put it on the same side of the plate in both: inside, one value a datum; outside, one for all"
            yield Finding("locality", name, message, remedy)


def global_weight(facts: Facts) -> Iterator[Finding]:
    """A latent for all data under a plate that has only the size of the batch."""
    outside = [n for n, s in facts.prior.items() if not data_frames(s)]
    sizes = {size for size, *_ in [_plates(facts.model).get(DATA, (None,))] if size}
    if not outside or not sizes:
        return
    size, rows = sizes.pop(), len(facts.x)
    others = {_plates(model).get(DATA, (size,))[0] for n, _, model in facts.others if n != rows}
    follows = size == rows and others - {size}
    known = facts.size is not None
    if known and size == facts.size:
        return
    if not (follows or known):
        return
    total = facts.size if known else "N"
    message = (
        f"site {outside[0]!r} is one for all {total} data, and plate {DATA!r} has size {size}"
        f"{', that of the batch' if follows else ''}: its KL is weighed 1/{size}, not 1/{total}"
    )
    remedy = f"give the plate the size of the whole set: pyro.plate({DATA!r}, N, subsample=torch.arange(len(x)))"
    yield Finding("global weight", outside[0], message, remedy, fatal=bool(follows and known))


def changing(facts: Facts) -> Iterator[Finding]:
    """Sites that come and go."""
    if not (facts.guide and facts.model) or any(f.kind == "loop" for f in facts.findings):
        return
    for i, which in enumerate(MODEL_AND_GUIDE):
        runs = [{n for n, _ in sites_of(trace[2 - i])} for trace in facts.others]
        first = {n for n, _ in sites_of(getattr(facts, which))}
        for name in sorted(set().union(*(first ^ names for names in runs))):
            message = f"site {name!r} of the {which} is there in some runs and not in others"
            remedy = "sample it always, and choose between values, not between sites"
            yield Finding("changing sites", name, message, remedy)


def densities_are_numbers(facts: Facts) -> Iterator[Finding]:
    """Log densities that are NaN or infinite, of finite data."""
    if not facts.sound:
        return
    for which in MODEL_AND_GUIDE:
        for name, site in sites_of(getattr(facts, which)):
            log_prob = site["fn"].log_prob(site["value"])
            bad = int((~torch.isfinite(log_prob)).sum())
            if bad:
                nan = bool(log_prob.isnan().any())
                message = f"the log density of {which} site {name!r} is not finite for {bad} of {log_prob.numel()} data"
                remedy = "look for log, sqrt or division of 0 in its parameters, and for scales that are not positive"
                yield Finding("non-finite", name, message, remedy, fatal=nan)
