"""Command lines: in go words of the user, out come checked dataclasses, and signals that stop a run cleanly."""
