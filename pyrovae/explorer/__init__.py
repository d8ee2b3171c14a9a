"""A page that makes a trained model felt: one file, which opens in a browser without a network."""

from .page import Page, explore

__all__ = ["Page", "explore"]
