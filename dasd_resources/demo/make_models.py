"""Makes the teacher and the student of the demo and of the school, from a seed, in minutes on two cores."""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from dasd_resources.demo.examples import DEMO_MODELS
from dasd_resources.demo.questions import SEED
from dasd_resources.demo.tiny_models import make, save
from dasd_resources.school.examples import SCHOOL_MODELS

MODELS = {tiny_model.name: tiny_model for tiny_model in (*DEMO_MODELS, *SCHOOL_MODELS)}


def main() -> None:
    """Make the models asked for."""
    parser = argparse.ArgumentParser(description="Make the teacher and the student of the demo and of the school.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent, help="default: where they ship")
    parser.add_argument("--only", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--num-steps", type=int)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for tiny_model in (MODELS[name] for name in args.only):
        if args.num_steps:
            tiny_model = replace(tiny_model, num_steps=(args.num_steps,))
        save(*make(tiny_model, args.seed), args.out / tiny_model.name)


if __name__ == "__main__":
    main()
