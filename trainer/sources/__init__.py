"""Task data, one module per kind: each turns what it finds into `trainer.example.Task`s."""
