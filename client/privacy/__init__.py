"""What protects the patients of a site."""
