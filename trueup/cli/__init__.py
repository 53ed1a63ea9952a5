"""The command line. Nothing in this package imports torch before a command needs it."""
