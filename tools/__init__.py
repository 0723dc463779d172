"""Tools that apply our patches to pinned upstream files, and check every byte."""
