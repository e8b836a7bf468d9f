"""A finished study's model for other programs, with a card that says what it is, signed."""
