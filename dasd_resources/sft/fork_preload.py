"""What the fork server imports (`forked.py`): a training's libraries, under the environment of a training."""

import os

from dasd_resources.sft.environment import CHILD_ENVIRONMENT

os.environ.update(CHILD_ENVIRONMENT)

import dasd_resources.sft.child  # noqa: F401
