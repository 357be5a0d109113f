"""Command lines: in goes what a user typed, out come checked dataclasses, and signals that stop a run cleanly."""
