"""Reading answers: planner, confidence."""
