"""Recipes, the trainer and its callbacks."""
