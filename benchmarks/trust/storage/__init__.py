"""What the disk and the system may do to an index that is saved, changed or read.

`syscalls`: every call of the system fails or is the last; `kill9`: the process is killed at any
moment; `power`: what was not flushed reaches the disk in any order, or does not.
"""
