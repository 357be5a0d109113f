"""A model without a network: in go our own prompts, out come rewrites, verdicts and drafts made by rules."""
