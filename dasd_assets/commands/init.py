"""`dasd init`: asks for teacher, student and held-out questions, writes a short recipe, and checks it (no table).

What a flag says is not asked; without a terminal, nothing is. All that the recipe leaves out has the report's default;
what this machine cannot do (no FlashAttention, one GPU, a shorter context) is written down as it has to be here.
"""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from dasd_assets.commands.check import print_checks
from dasd_assets.commands.evaluated_benchmarks import NUM_QUESTIONS, TASK
from dasd_assets.commands.found_models import (
    ServedModel,
    base_url,
    cached_models,
    commit_of,
    configuration,
    context_of,
    is_url,
    local_folder,
    served_models,
)
from dasd_assets.commands.messages import echo
from dasd_resources.benchmarks.layouts import LAYOUTS
from dasd_resources.errors import UserError
from dasd_resources.home import BENCHMARK_FOLDER
from dasd_resources.inference.engine_catalogue import DEFAULT_ENGINE, ENGINES, PLAIN_SCORER
from dasd_resources.inference.gpus import visible_gpus
from dasd_resources.recipe import load_recipe
from dasd_resources.recipe.document import SCHEMA_HINT, Plain, schema_text, text_of
from dasd_resources.recipe.parts import CONTEXT
from dasd_resources.recipe.service_settings import is_store
from dasd_resources.visible_text import show, visible
from dasd_resources.whole_files import write_whole

SCHEMA_FILE = "recipe.schema.json"  # in the home
SYSTEM_PROMPT = "You are a helpful assistant."  # the report's student has it in all stages (§6.4.1)
HARMONY = "gpt_oss"  # the type of model whose thinking is in harmony channels
SHARE = 0.75  # of a context, for a response: the rest is the question's


class NotSaid(UserError):
    """Something must be said that was not, and cannot be asked for; the message names the flag."""

    exit_code = 2


def command(args: argparse.Namespace) -> int:
    """Exit code 1 if a check failed: the recipe is written all the same, to be corrected."""
    path = Path(os.path.expanduser(args.file)).resolve()
    if path.exists() and not args.force:
        raise NotSaid(f"{path} is there; name another file, or add --force to replace it")
    document = drafted(args, path)
    schema = args.home / SCHEMA_FILE
    args.home.mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(schema, schema_text().encode())
    write_whole(path, (_header(path, schema) + text_of(document)).encode())
    echo(f"wrote {path}; checked:")
    recipe = load_recipe(str(path), args.home)
    failed = print_checks(recipe, args.home, quick=True)
    landing = recipe.automation.landing or str(args.home / "prompts")
    show(f"\nNext: put files of questions into {landing}\n  dasd check --recipe {path}\n  dasd run --recipe {path}")
    return int(failed)


def drafted(args: argparse.Namespace, path: Path) -> dict[str, Plain]:
    """The recipe's document, of what was said and what is found here."""
    known = cached_models()
    teacher_name = _said(args.teacher, "--teacher", "Teacher: a model, or the URL of its server", known)
    student_name = _said(args.student, "--student", "Student: a model", [n for n in known if n != teacher_name])
    if is_url(teacher_name):
        served, teacher = _served_teacher(args, base_url(teacher_name))
        context = served.context
    else:
        teacher, context = _local_model(teacher_name, path.parent), context_of(teacher_name)
    if args.thinking:
        teacher["thinking"] = args.thinking
    if configuration(str(teacher["model"])).get("model_type") == HARMONY:
        teacher["thinking_format"] = "harmony"
    student = {**_local_model(student_name, path.parent), "system_prompt": SYSTEM_PROMPT}
    of_student = context_of(student_name)
    landing: dict[str, Plain] = {"automation": {"landing": _landing(args.landing, path.parent)}} if args.landing else {}
    training = training_here(of_student)
    return {
        "name": re.sub(r"[^a-z0-9_-]+", "-", path.stem.lower()).strip("-_") or "mine",
        "teacher": teacher,
        "student": student,
        **landing,
        **_generation(context, min(CONTEXT, of_student or CONTEXT)),
        **({"training": training} if training else {}),
        "evaluation": {"benchmarks": _benchmarks(args, path.parent, of_student)},
    }


def training_here(context: int | None) -> dict[str, Plain]:
    """What training cannot have of the report's on this machine; context: of the student, in tokens."""
    gpus, found = visible_gpus(), dict[str, Plain]()
    if len(gpus) > 1:
        found |= {"strategy": "fsdp2", "gpus_per_node": len(gpus)}
    if context is not None and context < CONTEXT:
        found["max_length"] = context
    if find_spec("flash_attn") is None:  # without it, samples in one sequence would see each other
        found |= {"attn_implementation": "sdpa", "packing": False, "batch_counts": "samples"}
    if find_spec("kernels") is None:
        found["use_kernels"] = False
    return found if gpus else {**found, "dtype": "float32"}


def _generation(context: int | None, max_length: int) -> dict[str, Plain]:
    """As long a response as teacher and training take; left out where that is the default."""
    room = max_length if context is None else min(max_length, int(SHARE * context))
    return {} if room == max_length else {"generation": {"max_tokens": room}}


def _served_teacher(args: argparse.Namespace, url: str) -> tuple[ServedModel, dict[str, Plain]]:
    found = {one.name: one for one in served_models(url, args.api_key_env)}
    name = args.served_model or (next(iter(found)) if len(found) == 1 else None)
    name = _said(name, "--served-model", f"The server has several models at {url}", list(found))
    if name not in found:
        raise NotSaid(f"--served-model {name}: the server has {', '.join(found)}")
    served = found[name]
    here = next((one for one in (served.root, name) if one and local_folder(one) is not None), name)
    tokenizer = args.teacher_tokenizer or here
    revision = args.teacher_revision or commit_of(tokenizer)
    revision = _said(revision, "--teacher-revision", "A name for the served weights, such as v1", [])
    server: dict[str, Plain] = {"base_urls": [url], "model": name, "revision": revision}
    if args.api_key_env:
        server["api_key_env"] = args.api_key_env
    return served, {"model": tokenizer, "server": server}


def _local_model(name: str, folder: Path) -> dict[str, Plain]:
    model: dict[str, Plain] = {"model": _relative(name, folder) if Path(os.path.expanduser(name)).is_dir() else name}
    package = ENGINES[DEFAULT_ENGINE].package
    if package is not None and find_spec(package) is None:
        model["engine"] = PLAIN_SCORER
        if not visible_gpus():
            model["dtype"] = "float32"
    return model


def _benchmarks(args: argparse.Namespace, folder: Path, context: int | None) -> list[Plain]:
    """As they were named, or the files of known layouts in the home's folder."""
    found = [f"{name}={file}" for name in LAYOUTS for file in sorted((args.home / BENCHMARK_FOLDER).glob(f"{name}.*"))]
    asked = "Held-out questions (LAYOUT=FILE or reasoning_gym:DATASET)"
    texts = args.benchmark or found or [_said(None, "--benchmark", asked, [])]
    return [_benchmark(text, folder, context) for text in texts]


def _benchmark(text: str, folder: Path, context: int | None) -> dict[str, Plain]:
    layout, equals, file = text.partition("=")
    room = CONTEXT if context is None else int(SHARE * context)
    if text.startswith(TASK):
        dataset = text.removeprefix(TASK)
        task: dict[str, Plain] = {"dataset": dataset, "num_questions": NUM_QUESTIONS, "seed": 0}
        return {"name": dataset, "task": task, "max_tokens": min(room, CONTEXT)}
    if not equals or layout not in LAYOUTS:
        layouts = ", ".join(f"{name}=FILE" for name in LAYOUTS)
        raise NotSaid(f"--benchmark {text}: no layout with its file ({layouts}), no task ({TASK}DATASET)")
    limit: dict[str, Plain] = {"max_tokens": room} if context is not None and LAYOUTS[layout].max_tokens > room else {}
    return {"name": layout, "layout": layout, "path": _relative(file, folder), **limit}


def _said(value: str | None, flag: str, question: str, known: Sequence[str]) -> str:
    """The value, or what the terminal answers: a name, or the number of one that is listed."""
    listed = f" Found here: {', '.join(known)}." if known else ""
    if value:
        return value
    if not sys.stdin.isatty():
        raise NotSaid(f"{flag} is missing. {question}.{listed}")
    for number, name in enumerate(known, start=1):
        show(f"  {number}  {name}")
    try:
        while not (answer := input(f"{visible(question)}: ").strip()):
            pass
    except EOFError:
        raise NotSaid(f"{flag} is missing; answer the question, or give the flag") from None
    return known[int(answer) - 1] if answer.isdecimal() and 0 < int(answer) <= len(known) else answer


def _landing(place: str, folder: Path) -> str:
    return place if is_store(place) else _relative(place, folder)


def _relative(path: str, folder: Path) -> str:
    """As a recipe in that folder names it: from there if it lies below, else from the root."""
    full = Path(os.path.expanduser(path)).resolve()
    return f"./{full.relative_to(folder)}" if full.is_relative_to(folder) and full != folder else str(full)


def _header(path: Path, schema: Path) -> str:
    return (
        f"{SCHEMA_HINT}{os.path.relpath(schema, path.parent)}\n"
        f"# What is not here has the report's default: dasd recipe --recipe {path.name} --full\n"
    )
