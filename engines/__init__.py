"""Everything that has no user: requests come in, events go out. Never imports webui or presets."""
