"""From measurements to constants, and predictions against measurements."""
