"""The app: five production standards around a language model. Start reading in `main.py`."""
