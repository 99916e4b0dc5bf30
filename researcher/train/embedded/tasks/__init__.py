"""The generated tasks, one module a skill; each gives `Example`s with a right answer and a worked trace."""
