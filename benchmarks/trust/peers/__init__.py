"""The same damage, NaNs, interrupts and full disks for every embedded library."""
