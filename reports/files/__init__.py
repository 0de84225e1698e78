"""The other files that a run can be written as."""
