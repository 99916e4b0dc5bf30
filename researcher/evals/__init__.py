"""Measuring strategies: problems with known answers, runs at equal budgets, tables and curves of the results."""
