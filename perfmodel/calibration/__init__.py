"""Predictions against what was published: claims."""
