"""One module per provider behind one interface (`base.py`); only the chosen ones are loaded."""
