"""One file a revision. They import nothing of ours: a revision stays as it was when the code goes on."""
