"""The built-in portrait model: its pictures, its words, its training, its bars."""
