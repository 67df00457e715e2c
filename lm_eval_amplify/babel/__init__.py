"""babel: the embedded model, the corpus that it was trained on, and what was measured on it."""
