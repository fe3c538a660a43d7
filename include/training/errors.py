"""The ways a training run ends without a model."""


class TrainingError(Exception):
    """A job that cannot be trained; the message says what is wrong and what to do about it."""


class Stopped(BaseException):
    """The run was asked to stop; what it had learnt is in its newest checkpoint.

    Like KeyboardInterrupt no Exception, so that no library takes it for a failure and tries again.

    Args:
        signum: The signal that asked, SIGTERM (15) or SIGINT (2).
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by signal {signum}")
        self.signum = signum
