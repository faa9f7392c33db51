"""Energy-based models: log p(x) is known up to one constant, log Z."""
