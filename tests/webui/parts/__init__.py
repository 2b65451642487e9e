"""Tests of webui.parts."""
