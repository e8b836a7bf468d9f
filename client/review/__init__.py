"""People go through what a model says of a site's own patients, and put labels right."""
