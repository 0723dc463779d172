"""The verbs of the command line, by what they work on. Each imports what it needs when it runs, to start fast."""
