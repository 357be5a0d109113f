"""A model without a network: in go the tasks of requests, out come rewrites, verdicts and drafts made by rules."""
