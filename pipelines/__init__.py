"""Running the science: train, evaluate, register, serve."""
