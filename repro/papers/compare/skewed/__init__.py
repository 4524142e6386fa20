"""All models on the copula with heavy, skewed joint tails."""
