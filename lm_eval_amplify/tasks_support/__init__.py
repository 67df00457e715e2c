"""What the tasks in ``tasks/`` are made of."""
