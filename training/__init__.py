"""How the built-in models were made. Imports torch and engines; nothing imports it."""
