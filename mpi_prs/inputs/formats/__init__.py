"""Tables: one module a format. Each says how its files are split, and reads the rows of one part."""
