"""Deep generative models of four families behind one contract, with likelihoods that say what they are."""
