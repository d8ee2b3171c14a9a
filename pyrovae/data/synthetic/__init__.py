"""Data sets that are drawn here, by a rule that is written down: a program can be held against the truth."""
