"""How a model does at each site, and whether it was worth joining."""
