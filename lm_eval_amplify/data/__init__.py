"""Datasets as tables: from the Hub or a local mirror of the same columns, checked. Knows nothing of the harness."""
