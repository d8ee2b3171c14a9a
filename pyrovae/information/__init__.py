"""Information content, entropy, cross-entropy, Kullback-Leibler and Jensen-Shannon divergence, mutual information.

Each takes distributions of Pyro or torch, or probability vectors: tensors, arrays or lists whose last dimension sums to
one. A sum over a few values and a closed form are exact; the rest is a mean of draws, and says how far off it may be.
"""

from .divergences import cross_entropy, entropy, information_content, jensen_shannon, kl
from .mutual import mutual_information
from .quantity import Quantity

__all__ = [
    "Quantity",
    "cross_entropy",
    "entropy",
    "information_content",
    "jensen_shannon",
    "kl",
    "mutual_information",
]
