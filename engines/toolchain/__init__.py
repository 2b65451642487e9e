"""Makes bundles: one verb a file. Imports torch; imported by nothing but its own command line."""
