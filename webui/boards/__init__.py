"""Lists of jobs that live: the photos of a batch, and downloads."""
