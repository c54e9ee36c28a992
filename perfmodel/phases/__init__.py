"""Training steps and serving passes: settle, emit, compose."""
