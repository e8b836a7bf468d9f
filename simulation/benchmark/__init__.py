"""What prints the rows of BENCHMARKS.md."""
