"""What is true, without doing anything: facts, state folded from facts, and the arithmetic of retries. Standard library only."""
