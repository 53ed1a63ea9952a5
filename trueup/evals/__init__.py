"""Judging models and reward models honestly: every figure with its n and its interval."""
