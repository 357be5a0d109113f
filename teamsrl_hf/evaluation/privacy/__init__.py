"""Membership inference: in go a model and rows it saw or did not see, out comes a report on leakage."""
