"""How the built-in face restorer was made. Start with README.md; train.py and bars.py are the two commands."""
