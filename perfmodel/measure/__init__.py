"""Timing operators on the machine at hand: what to time, how to time it, the table it goes to, and what was found."""
