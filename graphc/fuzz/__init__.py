"""Random programs, what compares their runs, and what makes a failing one small."""
