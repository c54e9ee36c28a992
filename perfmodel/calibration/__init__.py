"""Predictions against what was published (claims) and measured; from measurements to constants."""
