"""Tests mirror the packages: test_<module>.py. Fakes, not mocks; contract tests run over all that is present."""
