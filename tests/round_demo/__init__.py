"""One whole round on this machine, and a poisoned one that the gate refuses: `make round-demo`."""
