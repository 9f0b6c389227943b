"""The five production standards: visibility, environment, availability, spending, tokens."""
