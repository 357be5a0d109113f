"""What a run leaves for its readers: in go rows and results, out come Parquet, cards, plots, report and lineage."""
