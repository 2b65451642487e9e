"""The tab that restores photos: one, or many."""
