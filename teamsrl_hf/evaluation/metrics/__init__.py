"""Measures of instruction data as modules of the `evaluate` library: a folder each, loaded by path or from the Hub."""
