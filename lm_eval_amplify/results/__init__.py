"""Results of the harness, ours and stock: read, made into rows, paired by document, tested for differences."""
