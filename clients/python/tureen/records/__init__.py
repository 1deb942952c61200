"""Preference data: every public form of files and records read into one record."""
