"""One mistake, and how a refusal or any other error becomes one."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True)
class Finding:
    """One mistake in a program or its data.

    Attributes:
        kind: a short name.
        site: the site that it is about; None where it is about no single one.
        message: one sentence: who, expected, got.
        remedy: what to do about it.
        fatal: whether training cannot be right.
    """

    kind: str
    site: str | None
    message: str
    remedy: str
    fatal: bool = True

    def __str__(self) -> str:
        remedy = self.remedy[:1].upper() + self.remedy[1:]
        return f"{self.message}. {remedy}{'' if remedy.endswith('.') else '.'}"


KINDS = {  # what a refusal says, and the kind of mistake that it is
    r"batch dimensions of plate 'data', size \d+": "to_event",
    r"batch dimensions of plate": "plate",
    r"is in no plate": "to_event",
    r"expects an observed value of shape": "data rows",
    r"is a Python loop": "loop",
    r"rows at site": "plate",
    r"under a poutine\.scale": "scale",
    r"Multiple \w+ sites named|pyro\.module\(|pyro\.param\(.*shape": "name clash",
    r"no reparametrised sampler": "discrete",
    r"and dropout ": "dropout",
    r"finite numbers|without NaN": "NaN in data",
    r"expects events of shape": "event shape",
    r"^likelihood \w+ expects": "data support",
    r"in the guide, with values in": "support",
    r"change from run to run": "changing sites",
    r"no observed site": "nothing observed",
    r"no plate named": "no data plate",
}
CONSEQUENCES = {  # a mistake, and what else it looks like
    "NaN in data": {"support", "data support", "non-finite", "objective"},
    "to_event": {"latent shape", "event shape"},
    "latent shape": {"event shape"},
    "plate": {"to_event", "latent shape"},
    "locality": {"global weight"},
}
_SHAPES = r"shape|size|dimension|channel|mat1|broadcast"


def of_refusal(error: Exception | str, kind: str = "error", fatal: bool = True) -> Finding:
    """The finding of a refusal in the words of the library: "who expects this, got that; remedy" or ". Remedy"."""
    text = " ".join(str(error).split())
    kind = next((k for pattern, k in KINDS.items() if re.search(pattern, text)), kind)
    site = re.search(r"site '([^']+)'|sites named '([^']+)'", text)
    parts = re.split(r"\. (?=[A-Z])", text, maxsplit=1)
    if len(parts) == 1:
        parts = text.split("; ", 1)
    remedy = parts[1] if len(parts) == 2 else "run the model and the guide by hand to see where"
    if kind == "name clash" and len(parts) == 1:
        remedy = "give every site a name of its own"
    return Finding(kind, next((s for s in site.groups() if s), None) if site else None, parts[0], remedy, fatal)


def of_error(error: Exception, who: str, x: Tensor) -> Finding:
    """The finding of whatever a program raises as it runs on x."""
    line = str(error).strip().partition("\n")[0]
    if isinstance(error, ValueError) or "sites named" in line:
        found = of_refusal(line)
        plate = re.search(r"plate 'data', size (\d+)", line)
        if plate and int(plate[1]) != len(x):  # no event stands where the batch should: the plate is another
            found = replace(found, kind="plate")
        return found
    shaped = re.search(_SHAPES, line) is not None
    remedy = (
        f"build the networks for events of shape {list(x.shape[1:])}, or reshape the data"
        if shaped
        else f"run {who} by hand on such an x to see where"
    )
    message = f"the {who} does not take x of shape {list(x.shape)}: {type(error).__name__}: {line}"
    return Finding("event shape" if shaped else "error", None, message, remedy)


def without_consequences(findings: list[Finding]) -> list[Finding]:
    """Once each, and only what is no other look of another mistake."""
    hidden = {kind for f in findings for kind in CONSEQUENCES.get(f.kind, ())}
    return [f for f in dict.fromkeys(findings) if f.kind not in hidden]
