"""Token log-likelihoods fast: shared prefixes computed once, logits only where something is scored."""
