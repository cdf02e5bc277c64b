"""In place of Ray, for commands that need none."""

raise ImportError("this command needs no Ray")
