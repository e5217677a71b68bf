"""A module that kills whatever process imports it, as a broken extension module does."""

import os
import signal

if __name__ != "__main__":
    os.kill(os.getpid(), signal.SIGKILL)
