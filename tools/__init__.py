"""Tools that turn pinned upstream files and our patches into verified model files."""

__version__ = "0.1.0"
