"""Before spending: in go an evolver and its seeds, out come requests to look at and a forecast of calls and rows."""
