"""Rewards-in-Context: a policy that reads in its prompt which rewards its answer shall reach."""
