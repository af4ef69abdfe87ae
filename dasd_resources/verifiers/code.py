"""`code`: the answer's program passes all tests of its question, run in a sandbox.

What a test expects is compared here, in our process, with what the program printed or returned as plain data; only
assertions are checked inside, in a process that the program cannot reach. So a program has nothing to forge: an exit, a
patched function or a text that looks like a result is an answer like any other.
"""

import json
from binascii import Error as InvalidBase64

from dasd_resources.sandbox import Ended, Job, Session
from dasd_resources.sandbox.inside.values import decoded, encoded
from dasd_resources.verifiers.code_output import same_output, same_value
from dasd_resources.verifiers.code_programs import program_of
from dasd_resources.verifiers.code_tests import CallTest, InvalidTests, OutputTest, Test, question_tests
from dasd_resources.verifiers.judgement import CORRECT, Asked, Judgement, JudgementKind, Outcome
from dasd_resources.visible_text import excerpt


def judge_code(answer: str, asked: Asked) -> Judgement:
    """Whether the program in the answer passes every test; if not, the first that it does not pass, and how.

    Raises NoSandbox where nothing can be run.
    """
    program, why = program_of(answer)
    if program is None:
        return Judgement("incorrect", "no_program", why)
    try:
        tests = question_tests(asked)
    except InvalidTests as error:
        return Judgement("unverifiable", "invalid_tests", str(error))
    return _judge(program, tests, asked)


def check_tests(asked: Asked) -> str | None:
    """Why no program could be judged: there are no tests, or they cannot be read."""
    try:
        question_tests(asked)
    except InvalidTests as error:
        return str(error)
    return None


def _judge(program: str, tests: list[Test], asked: Asked, again: bool = True) -> Judgement:
    """One sandbox for all tests of a program, a fresh process in it for each; another one if that breaks."""
    most, seconds = asked.confinement.seconds_per_answer, 0.0
    with Session(asked.confinement) as session:
        for number, test in enumerate(tests, 1):
            came = session.run(_job(program, test))
            if came.status == "broken" and again:
                return _judge(program, tests, asked, again=False)
            seconds += came.seconds
            found = _fault(test, came) if seconds <= most else ("timed_out", f"{most:g} s are used up")
            if found is not None:
                kind, what = found
                outcome: Outcome = "unverifiable" if kind == "invalid_tests" else "incorrect"
                return Judgement(outcome, kind, f"test {number} of {len(tests)}: {what}")
    return CORRECT


def _job(program: str, test: Test) -> Job:
    if isinstance(test, OutputTest):
        return {"kind": "program", "program": program, "input": test.input}
    if isinstance(test, CallTest):
        arguments = [encoded(argument) for argument in test.arguments]
        return {"kind": "call", "program": program, "name": test.name, "arguments": arguments}
    return {"kind": "test", "program": program, "test": test.code}


def _fault(test: Test, came: Ended) -> tuple[JudgementKind, str] | None:
    """Why the test is not passed, by what came of it."""
    if came.status == "broken":
        return "runtime_error", "its sandbox ended with it, twice"
    if came.status != "ended":
        return came.status, _WHAT[came.status]
    if isinstance(test, OutputTest):
        return _of_output(test, came)
    try:
        result = json.loads(came.output)
    except (ValueError, RecursionError):
        result = None
    if not isinstance(result, dict) or (any(came.codes) and isinstance(test, CallTest)):
        return "runtime_error", _last_words(came)
    return _of_value(test, result) if isinstance(test, CallTest) else _of_assertions(result, came)


_WHAT = {
    "timed_out": "no time is left",
    "out_of_memory": "no memory is left",
    "too_much_output": "it writes too much",
}


def _of_output(test: OutputTest, came: Ended) -> tuple[JudgementKind, str] | None:
    if any(came.codes):
        return "runtime_error", _last_words(came)
    found = came.output.decode("utf-8", "backslashreplace")
    if same_output(found, test.output):
        return None
    return "wrong_output", f"it prints {excerpt(found)}, expected {excerpt(test.output)}"


def _of_value(test: CallTest, result: dict[str, object]) -> tuple[JudgementKind, str] | None:
    try:
        found = decoded(result.get("value"))
    except (ValueError, TypeError, RecursionError, InvalidBase64):
        return "wrong_output", "it returns what is no plain data"
    if any(same_value(found, value) for value in test.values):
        return None
    return "wrong_output", f"{test.name} returns {_shown(found)}, expected {_shown(test.values[0])}"


def _shown(value: object) -> str:
    try:
        return excerpt(value)
    except ValueError:  # Python does not write numbers of thousands of digits
        return "a number of thousands of digits"


def _of_assertions(result: dict[str, object], came: Ended) -> tuple[JudgementKind, str] | None:
    if result.get("passed") is True:
        return None
    if "fault" in result:
        return "invalid_tests", str(result["fault"])
    if "failed" in result:
        return "wrong_output", excerpt(str(result["failed"]))
    return "runtime_error", excerpt(str(result["raised"])) if "raised" in result else _last_words(came)


def _last_words(came: Ended) -> str:
    """The last line of its standard error, else how it ended."""
    lines = came.errors.strip().splitlines()
    code = next((code for code in came.codes if code), 0)
    ending = f"it was ended by signal {-code}" if code < 0 else f"it ended with code {code}"
    return excerpt(lines[-1]) if lines else ending if code else "it ended without a result"
