"""What work would take on a machine, from a model's config alone."""
