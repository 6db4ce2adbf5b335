"""Tests of the plugin; they make their own data and run without a display, a GPU or a download."""
