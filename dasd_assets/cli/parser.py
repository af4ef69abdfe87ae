"""The arguments of all commands. Making the parser imports nothing slow, reads nothing and writes nothing.

The reference pages and the completion of shells are made from it.
"""

import argparse
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import version

from dasd_assets.audit.arguments import RECIPE_HELP, port, positive
from dasd_resources.spelling import meant
from dasd_resources.visible_text import hand_over
from dasd_resources.web_address import LOOPBACK

JSON_HELP = "print a JSON array of objects"
SHELLS = ("bash", "zsh", "tcsh")


class Parser(argparse.ArgumentParser):
    """One that says what a mistyped command or option was meant to be."""

    def _check_value(self, action: argparse.Action, value: object) -> None:
        if action.choices is not None and value not in action.choices:
            names = ", ".join(map(str, action.choices))
            close = meant(str(value), map(str, action.choices))
            raise argparse.ArgumentError(action, f"there is no {value!r}{close or f'; there are {names}'}")


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The arguments that these words are; ends the process, with code 2, where they are none."""
    of_all = parser()
    found, unknown = of_all.parse_known_args(words)
    if unknown:
        known = [name for action in _chosen(of_all, words)._actions for name in action.option_strings]
        of_all.error(f"unrecognized arguments: {' '.join(unknown)}{meant(unknown[0], known)}")
    return found


def _chosen(of_command: argparse.ArgumentParser, words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of the command that the words name."""
    for action in of_command._actions:
        if isinstance(action, argparse._SubParsersAction) and words and words[0] in action.choices:
            inner: argparse.ArgumentParser = action.choices[words[0]]
            return _chosen(inner, words[1:])
    return of_command


def parser() -> argparse.ArgumentParser:
    """The parser of `dasd` with all commands; each sets `command`, the function that carries it out."""
    from dasd_assets.audit.command import add_commands as add_audit_commands
    from dasd_assets.viewer.command import add_commands as add_viewer

    parser: argparse.ArgumentParser = Parser(prog="dasd", description="Distribution-aligned sequence distillation.")
    parser.add_argument("--version", action="version", version=f"dasd {version('dasd')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_start(commands)
    _add_work(commands)
    _add_inspection(commands)
    _add_export(commands)
    _add_backups(commands)
    _add_repair(commands)
    add_audit_commands(commands)
    add_viewer(commands)
    return parser


Subparsers = argparse._SubParsersAction


def _add_start(commands: Subparsers) -> None:
    """What comes first: a recipe of one's own, and help for writing it."""
    _add_init(commands)
    recipe = commands.add_parser("recipe", help="print a recipe: what it changes of the defaults, or all of it")
    recipe.add_argument("--recipe", help=RECIPE_HELP)
    recipe.add_argument("--full", action="store_true", help="all keys with their values, and what they mean")
    recipe.add_argument("--schema", action="store_true", help="the JSON schema of recipes, for editors")
    recipe.set_defaults(command=_command("recipe"))
    completion = commands.add_parser("completion", help="print a script that completes `dasd` in a shell")
    completion.add_argument("shell", choices=SHELLS)
    completion.set_defaults(command=_complete)


def _add_init(commands: Subparsers) -> None:
    init = commands.add_parser("init", help="write a short recipe for your models, and check it")
    init.add_argument("file", nargs="?", default="recipe.yaml", help="where to (default: recipe.yaml)")
    init.add_argument("--teacher", metavar="MODEL", help="a folder, a downloaded hub model, or the URL of its server")
    init.add_argument("--student", metavar="MODEL", help="a folder or a downloaded hub model")
    init.add_argument("--served-model", metavar="ID", help="of several that the server has")
    init.add_argument("--teacher-tokenizer", metavar="MODEL", help="of a served teacher, if its id is not a model here")
    init.add_argument("--teacher-revision", metavar="NAME", help="of a served teacher's weights: any name, such as v1")
    init.add_argument("--api-key-env", metavar="VARIABLE", help="the environment variable with the server's key")
    init.add_argument("--thinking", choices=("required", "optional", "none"), help="of the teacher's responses")
    init.add_argument(
        "--benchmark", nargs="+", metavar="LAYOUT=FILE", help="held-out questions; or reasoning_gym:DATASET"
    )
    landing_help = "where questions land, or an fsspec URL such as s3://… (default: $DASD_HOME/prompts)"
    init.add_argument("--landing", metavar="FOLDER", help=landing_help)
    init.add_argument("--force", action="store_true", help="replace a file that is there")
    init.set_defaults(command=_command("init"))


def _add_work(commands: Subparsers) -> None:
    """What makes data and models."""
    run = commands.add_parser("run", help="bring everything up to date; what already is up to date is kept")
    run.add_argument("--recipe", help=RECIPE_HELP)
    run.add_argument("--select", help="materialize exactly these assets, e.g. 'response_scores+'")
    run.add_argument("--dry-run", action="store_true", help="say what would be made, and why; make nothing")
    run.set_defaults(command=_command("run"))
    land = commands.add_parser("land", help="look at files' first rows and put them into the landing folder whole")
    land.add_argument("source", nargs="+", help="files or folders; with --revision, datasets of the Hugging Face hub")
    land.add_argument("--recipe", help=RECIPE_HELP)
    land.add_argument("--revision", metavar="COMMIT", help="download this commit of the dataset, data files alone")
    land.add_argument("--config", help="only files in a folder of this name")
    land.add_argument("--split", help="only this split; by default all but held-out ones (test, validation)")
    land.set_defaults(command=_command("land"))
    evaluate = commands.add_parser("evaluate", help="ask any model held-out questions, each answer once")
    evaluate.add_argument("model", help="a stage of the recipe, a checkpoint's id, a folder, a hub model, a YAML file")
    evaluate.add_argument(
        "--benchmark", nargs="+", required=True, help="of the recipe; LAYOUT=FILE; reasoning_gym:DATASET,option=value"
    )
    evaluate.add_argument("--recipe", help=RECIPE_HELP)
    evaluate.add_argument("--samples", type=positive, help="answers to each question")
    evaluate.add_argument("--temperature", type=float, nargs="+", help="of the answers; several are asked one by one")
    evaluate.add_argument("--top-p", type=float)
    evaluate.add_argument("--max-tokens", type=positive, help="of each answer")
    evaluate.add_argument("--json", action="store_true", help=JSON_HELP)
    evaluate.set_defaults(command=_command("evaluate"))
    fetch = commands.add_parser(
        "fetch-benchmarks", help="download well-known benchmarks as the ready layouts read them"
    )
    fetch.add_argument("names", nargs="*", metavar="NAME", help="aime24, aime25, math500, … (default: all)")
    fetch.add_argument("--revision", metavar="COMMIT", help="of one benchmark (default: as fetched before, or newest)")
    fetch.add_argument("--replace", action="store_true", help="fetch anew what is there")
    fetch.set_defaults(command=_command("fetch_benchmarks"))
    chat = commands.add_parser("chat", help="ask models what you type, or each line of standard input")
    chat.add_argument(
        "model", help="as of `evaluate`: a stage of the recipe, an id, a folder, a hub model, a YAML file"
    )
    chat.add_argument("--beside", nargs="+", metavar="MODEL", help="others that answer the same, e.g. teacher student")
    chat.add_argument("--recipe", help=RECIPE_HELP)
    chat.add_argument("--system", metavar="TEXT", help="the system prompt, instead of each model's own")
    chat.add_argument("--temperature", type=float, help="of the answers (default: of held-out questions)")
    chat.add_argument("--top-p", type=float)
    chat.add_argument("--max-tokens", type=positive, help="of each answer (default: generation.max_tokens)")
    chat.set_defaults(command=_command("chat"))
    _add_experiment(commands)
    ui = commands.add_parser("ui", help="open Dagster's web UI and daemon on loopback")
    ui.add_argument("--host", default=LOOPBACK, help="any address but loopback is open to everybody who can reach it")
    ui.add_argument("--port", type=port, default=3000)
    help_text = "the report's page in the web browser (default: on a terminal, where a browser has a window)"
    ui.add_argument("--open", action=argparse.BooleanOptionalAction, help=help_text)
    ui.set_defaults(command=_command("ui"))


def _add_experiment(commands: Subparsers) -> None:
    help_text = "train and compare the arms of an experiment; without a name, list the experiments"
    experiment = commands.add_parser("experiment", help=help_text)
    names_help = "of those that are known, or YAML files (docs/experiments.md)"
    experiment.add_argument("names", metavar="NAME", nargs="*", help=names_help)
    experiment.add_argument("--all", action="store_true", help="run all experiments of the recipe")
    experiment.add_argument("--write", metavar="FOLDER", help="write what all have found as pages and figures")
    experiment.add_argument("--arms", nargs="+", metavar="ARM", help="only these")
    experiment.add_argument("--seeds", nargs="+", type=int, metavar="SEED", help="only these")
    experiment.add_argument("--recipe", help=RECIPE_HELP)
    experiment.set_defaults(command=_command("experiment"))


def _add_plan(commands: Subparsers) -> None:
    plan = commands.add_parser("plan", help="what a recipe takes: time, GPU-hours, money, disk and rows of each stage")
    plan.add_argument("name", nargs="?", metavar="RECIPE", help=RECIPE_HELP)
    plan.add_argument("--recipe", help=argparse.SUPPRESS)  # as the other commands have it
    plan.add_argument("--pilot", type=positive, metavar="N", help="first run it on so many questions, and measure")
    plan.add_argument("--questions", type=positive, metavar="N", help="instead of as many as have landed")
    plan.add_argument("--gpu", metavar="NAME", help="A100, L40S, H100, H200, B200 or cpu (default: this machine's)")
    plan.add_argument("--gpus", type=positive, metavar="N", help="how many (default: this machine's, else 8)")
    plan.add_argument("--price", type=float, metavar="DOLLARS", help="of one for an hour")
    plan.add_argument("--json", action="store_true", help="print one JSON object")
    plan.set_defaults(command=_command("plan"))


def _add_inspection(commands: Subparsers) -> None:
    """What shows the state of a home or a recipe."""
    _add_plan(commands)
    assets = commands.add_parser("assets", help="list what a recipe makes, and whether it is current")
    assets.add_argument("--recipe", help=RECIPE_HELP)
    assets.add_argument("--json", action="store_true", help=JSON_HELP)
    assets.set_defaults(command=_command("assets"))
    check = commands.add_parser("check", help="check everything that a recipe needs before a long run")
    check.add_argument("--recipe", help=RECIPE_HELP)
    check.add_argument("--quick", action="store_true", help="load no model and ask no server")
    check.add_argument("--json", action="store_true", help=JSON_HELP)
    check.set_defaults(command=_command("check"))
    quarantine = commands.add_parser("quarantine", help="list the batches that kept failing, with the reasons")
    quarantine.add_argument("--release", nargs="+", metavar="BATCH", help="release these batches, or `all`")
    quarantine.add_argument("--list", action="store_true", help="the default")
    quarantine.add_argument("--json", action="store_true", help=JSON_HELP)
    quarantine.set_defaults(command=_command("quarantine"))
    rescore = commands.add_parser("rescore", help="drop what the student scored wrongly, to have it scored again")
    rescore.add_argument("batches", nargs="+", metavar="BATCH", help="one whose engine_parity failed")
    rescore.add_argument("--recipe", help=RECIPE_HELP)
    rescore.set_defaults(command=_command("rescore"))
    compare = commands.add_parser("compare", help="how two models differ on held-out questions, and how sure that is")
    for name in ("a", "b"):
        compare.add_argument(
            name,
            metavar=name.upper(),
            help="a checkpoint's id, RECIPE/NAME, [RECIPE/]EXPERIMENT/ARM, or a folder or hub model once evaluated",
        )
    compare.add_argument("--json", action="store_true", help="print one JSON object")
    compare.set_defaults(command=_command("compare"))
    report = commands.add_parser("report", help="write the report's page anew from the tables, and show it")
    report.add_argument("--recipe", help=RECIPE_HELP)
    report.add_argument("--open", action="store_true", help="in the web browser")
    report.set_defaults(command=_command("report"))
    sql = commands.add_parser("sql", help="query the warehouse, read-only, beside running writers")
    sql.add_argument("query")
    form = sql.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help=JSON_HELP)
    form.add_argument("--csv", metavar="FILE", help="write all rows to this file; lists and structs as JSON")
    form.add_argument("--parquet", metavar="FILE", help="write all rows to this file")
    sql.add_argument("--at", type=int, metavar="SNAPSHOT", help="as of this snapshot (see: FROM dasd.snapshots())")
    sql.set_defaults(command=_command("sql"))


def _add_export(commands: Subparsers) -> None:
    export = commands.add_parser("export", help="write the training sets as a dataset for others")
    export.add_argument("folder", help="where to; a release that is there is replaced")
    export.add_argument("--recipe", help=RECIPE_HELP)
    export.add_argument("--form", help="of the rows (default: the recipe's, else messages)")
    export.add_argument("--logprobs", action="store_true", default=None, help="the teacher's token logprobs, too")
    export.add_argument("--control", action="store_true", default=None, help="the random control, too")
    export.add_argument("--at", type=int, metavar="SNAPSHOT", help="as of this snapshot (see: FROM dasd.snapshots())")
    export.add_argument("--push", metavar="OWNER/NAME", help="upload it to this dataset repository, which is private")
    export.add_argument("--public", action="store_true", help="with --push: a new repository is public")
    export.set_defaults(command=_command("export"))


def _add_backups(commands: Subparsers) -> None:
    backup = commands.add_parser("backup", help="save the home to a folder, consistent, while writers run")
    backup.add_argument("folder", help="one subfolder per backup; later ones share files with those before")
    backup.add_argument("--keep", type=positive, default=3, help="delete all but this many of the newest (default 3)")
    backup.add_argument("--link", action="store_true", help="hard-link files to the home's: fast, but on the same disk")
    backup.set_defaults(command=_command("backup"))
    restore = commands.add_parser("restore", help="restore a backup to DASD_HOME, every file verified")
    restore.add_argument("folder", help="a folder of `dasd backup` (its newest) or one backup in it")
    restore.add_argument("--replace", action="store_true", help="first move an existing home to another name")
    restore.set_defaults(command=_command("restore"))


def _add_repair(commands: Subparsers) -> None:
    repair = commands.add_parser("repair", help="say what is damaged, and what of it can be made again")
    repair.add_argument("--apply", action="store_true", help="drop the files whose rows `dasd run` makes again")
    repair.add_argument("--recipe", help=RECIPE_HELP)
    repair.set_defaults(command=_command("repair"))


def _complete(args: argparse.Namespace) -> int:
    import shtab

    hand_over(f"{shtab.complete(parser(), args.shell)}\n")
    return 0


def _command(name: str) -> Callable[[argparse.Namespace], int]:
    """The `command` of a module in dasd_assets.commands, which is imported when it is called."""

    def call(args: argparse.Namespace) -> int:
        return int(import_module(f"dasd_assets.commands.{name}").command(args))

    return call
