"""Profiles: what ran, for how long, called from which line."""
