"""What the template measures: `make bench`, and README.md beside this file."""
