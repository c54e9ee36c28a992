"""Engines: work in, seconds out."""
