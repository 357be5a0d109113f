"""Measures of texts and models: in go instructions, answers or a model, out come figures with their intervals."""
