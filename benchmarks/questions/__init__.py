"""The questions, a module each; its docstring is the method."""
