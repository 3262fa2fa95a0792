"""A student on this machine, for those who have no cluster: its model, its vLLM, its open routes closed."""
