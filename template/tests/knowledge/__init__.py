"""What is found in `knowledge/`: in English and in Korean, whatever is asked."""
