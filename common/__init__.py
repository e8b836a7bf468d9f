"""What server and sites share; no network."""
