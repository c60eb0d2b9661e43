#!/bin/sh
# Rank 1 of 3 gives up with exit code 7 while the others wait for it: all must end, with that code.
mpirun -np 3 --timeout 40 "$1" 2>/dev/null
code=$?
[ "$code" -eq 7 ] && exit 0
echo "expected mpirun to end with code 7, it ended with $code" >&2
exit 1
