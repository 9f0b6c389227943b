"""The edge: what HTTP itself needs around the standards. No rule about money or tokens is here."""
