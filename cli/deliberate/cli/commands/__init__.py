"""The commands; each file holds one, and `main.py` registers it."""
