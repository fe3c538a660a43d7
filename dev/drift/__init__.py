"""Simulates the drift test on resampled answers of a real model, beside what a user would take instead."""
