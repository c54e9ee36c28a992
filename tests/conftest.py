"""Tests share the helpers in ``planning.py``; this file puts its folder on the import path."""
