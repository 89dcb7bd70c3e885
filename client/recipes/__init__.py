"""Recipes: elections, barriers, parties, shared work and scheduled jobs, made of nothing but what clients offer."""
