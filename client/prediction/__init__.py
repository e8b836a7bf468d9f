"""A finished study's model on images that it has not seen. Nothing of it leaves the site."""
