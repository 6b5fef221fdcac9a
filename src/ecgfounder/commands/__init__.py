"""The commands: a module each, with the flags that they share."""
