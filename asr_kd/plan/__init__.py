"""What a run would take: disk, memory, operations and hours of every stage, before it is begun."""
