"""log Z of energy models: tempered families for annealing, and sums over all states."""
