"""Looking inside: what the thinking of stored threads does, how long it is, how it repeats, and what goes with being
right. Pure but for reading logs; torch is not needed."""
