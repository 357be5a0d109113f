"""What is read and written: in go files and tables, out come seeds, operations and plans; no models, no torch."""
