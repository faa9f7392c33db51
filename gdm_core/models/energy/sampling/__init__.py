"""Markov chains over units and pixels: Gibbs scans, Langevin steps, chains as images."""
