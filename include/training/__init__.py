"""The trainer and the scorer."""

import os

# torch's threads wait for each other by spinning. On a machine that others use too that makes a step many times slower;
# if they always slept, it would be a quarter slower where nobody else is. So they spin for some microseconds only.
# OpenMP reads it when torch is loaded, hence here. A process that loads torch before needs it in its environment.
SPIN_COUNT = "3000"
os.putenv("GOMP_SPINCOUNT", SPIN_COUNT)
