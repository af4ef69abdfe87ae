"""Models asked and scored: the engine protocol, the engines, and model folders."""
