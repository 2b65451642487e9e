"""Portraits drawn from attributes: geometry once, then as many looks (light, colours, backdrop, style) as wanted."""
