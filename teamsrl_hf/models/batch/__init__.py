"""Batch APIs: in go requests that may wait for hours, out come their answers, at about half the price."""
