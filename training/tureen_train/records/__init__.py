"""Preference data: every public form read into one record, split by prompt, and written back."""
