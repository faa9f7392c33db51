"""The dashboard: loads registered models and runs them."""
