"""Distributions that torch and Pyro lack, or have in a slower or less exact form."""
