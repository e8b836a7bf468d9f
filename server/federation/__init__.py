"""Who belongs to the federation: its authority, its sites, their certificates."""
