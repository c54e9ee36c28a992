"""The search: axes, mesh, masks, best plans, certificate."""
