"""Training: one visible loop, and the folder a run leaves behind."""

from .fit import Fit, fit
from .run_folder import RunFolder, load, save

__all__ = ["Fit", "RunFolder", "fit", "load", "save"]
