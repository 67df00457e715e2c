"""Results of the harness read, ranked, and compared: rows, statistics, tables."""
