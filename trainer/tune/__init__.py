"""Fine-tune the student: a configuration, what is checked before it starts, an engine as a process, its progress."""
