"""What a hospital's data is like before it takes part: read whole, counted, and judged."""
