"""The trainer and the scorer."""

import os

# torch's threads wait for each other by spinning. On a machine that others use too that made a step up to five times
# slower, so they sleep instead. OpenMP reads it when torch is loaded, hence here; GOMP_SPINCOUNT has the last word.
os.putenv("OMP_WAIT_POLICY", "passive")
