"""Rewards about a student: in go chains and the model that will be trained on them, out comes what steps are worth."""
