"""What trains: each module runs in the train environment, as a process of its own, and imports nothing of ours."""
