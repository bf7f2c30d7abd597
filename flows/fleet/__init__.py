"""Machines of the fleet: orders, rows, queues, and how long they are waited for."""
