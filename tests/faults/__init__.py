"""Faults from outside: servers and MongoDB are killed and stopped while events flow, and every acknowledged event is accounted for."""
