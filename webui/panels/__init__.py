"""One tab a module, or a package where a tab has several panels: layout and listeners."""
