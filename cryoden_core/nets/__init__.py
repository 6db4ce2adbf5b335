"""Networks that map volumes to volumes, or to a score."""
