"""The child process in which math-verify compares two expressions: a line of JSON in, a line of JSON out.

sympy works on what a model wrote, so this runs in a process of its own, with limits on memory and CPU time, that can be
killed; it is started as a script, isolated, and imports nothing of the project. Only whole expressions are parsed: the
answer was found before, since math-verify's own search takes any number for one (`1 - \\frac{1}{` is 1 to it).
"""

# mypy: disable-error-code="import-untyped"
import json
import logging
import re
import resource
import signal
import sys
from collections.abc import Iterable
from functools import lru_cache

from latex2sympy2_extended import NormalizationConfig, latex2sympy, normalize_latex
from latex2sympy2_extended.latex2sympy2 import ConversionConfig
from math_verify import verify
from math_verify.grader import is_assignment_relation, is_equation, is_relation, should_treat_as_complex
from math_verify.parser import get_last_eq
from sympy import Basic, EmptySet, Eq, FiniteSet, Float, Interval, Set, Symbol, Tuple
from sympy.core.function import AppliedUndef
from sympy.core.relational import Relational

NORMALIZATION = NormalizationConfig(
    basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all", equations=False
)
CONVERSION = ConversionConfig(lowercase_symbols=False)
TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
PARENTHESIS = re.compile(r"\s*(?:\\left\s*)?\(")  # begins a tuple; one of two members is an interval to sympy
EXACT, ROUNDED = 1e-12, 2e-6  # relative differences: of two exact numbers, and where one is a decimal


def main(cpu_seconds: int, memory_bytes: int) -> None:
    """Answer requests until the input ends."""
    logging.disable()  # math-verify would warn that its own time limit is off
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, whose end closes the input
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # it has nothing to write but its replies
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        allow(cpu_seconds)
        try:
            request = json.loads(line)
            reply = compared(request["reference"], request["answer"])
        except MemoryError:
            reply = "out_of_memory"
        except Exception as error:  # sympy's, of an expression that it cannot handle
            reply = f"math-verify raised {type(error).__name__}"
        print(json.dumps(reply), flush=True)


def allow(cpu_seconds: int) -> None:
    """Let this process use so much more CPU time; beyond that, the system ends it (SIGXCPU)."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(usage.ru_utime + usage.ru_stime) + 1 + cpu_seconds, hard))


def compared(reference: str, answer: str) -> str:
    """`same`, `different`, or which of the two cannot be read."""
    gold = parsed(reference)
    if gold is None:
        return "unreadable_reference"
    found = parsed(answer)
    if found is None:
        return "unreadable_answer"
    if isinstance(gold, Interval | Tuple) and PARENTHESIS.match(reference):
        found = in_order(found, answer)
    return "same" if same(gold, found, reference, answer) else "different"


@lru_cache(maxsize=256)
def parsed(latex: str) -> Basic | None:
    """The expression of a LaTeX text; None unless all of it is read."""
    normalized = normalize_latex(latex, NORMALIZATION)
    for text in (normalized, get_last_eq(normalized)):  # the last of `a = b = c`, if that is all that can be read
        try:
            expression = latex2sympy(
                text,
                is_real=not should_treat_as_complex(text),
                convert_degrees=TRIGONOMETRIC.search(text) is not None,  # elsewhere, 90^\circ is compared with 90
                normalization_config=None,
                conversion_config=CONVERSION,
            )
            return without_argument(expression)
        except MemoryError:
            raise
        except Exception:  # the parser raises what it likes for what it does not understand
            continue
    return None


def in_order(found: Basic, answer: str) -> Basic:
    """An answer as the tuple that it is without its parentheses, if it is one: math-verify would sort a list."""
    ordered = parsed(f"({answer})") if isinstance(found, FiniteSet) and r"\{" not in answer else None
    return found if ordered is None else ordered


def without_argument(expression: Basic) -> Basic:
    """Of a function that is constant, `W = 1`: the name of its variable, in `W(x) = 1`, is nothing to compare."""
    if isinstance(expression, FiniteSet):
        return type(expression)(*map(without_argument, expression.args))
    if not isinstance(expression, Eq) or not isinstance(expression.lhs, AppliedUndef) or expression.rhs.free_symbols:
        return expression
    if not all(argument.is_Symbol for argument in expression.lhs.args):
        return expression
    return Eq(Symbol(expression.lhs.func.__name__), expression.rhs, evaluate=False)


def same(gold: Basic, found: Basic, reference: str, answer: str) -> bool:
    """math-verify's verdict, but for the pairs of which it is known to be wrong."""
    if confused(gold, found, reference, answer) or not close(gold, found):  # two numbers need no simplification then
        return False
    bounds = isinstance(gold, Set) and not isinstance(gold, FiniteSet) and is_bounds(found)
    return bool(verify(gold, found, timeout_seconds=None, allow_set_relation_comp=bounds))


def is_bounds(relation: Basic) -> bool:
    """Whether inequalities say how far a variable goes, as an interval does; not if they are still to be solved."""
    parts = getattr(relation, "_unsorted_args", None) or [relation]
    return all(isinstance(part, Relational) and any(side.is_Symbol for side in (part.lhs, part.rhs)) for part in parts)


def confused(gold: Basic, found: Basic, reference: str, answer: str) -> bool:
    """Whether the two are of kinds that math-verify does not tell apart.

    A set written with braces and a tuple or interval; an equation that gives no value (`x^2 = 5` is not 5); an interval
    that sympy holds for empty, whatever its ends.
    """
    texts = ((gold, found, reference), (found, gold, answer))
    if any(re.match(r"\s*\\\{", text) and isinstance(other, Interval | Tuple) for _, other, text in texts):
        return True
    if gold is EmptySet or found is EmptySet:
        return bool(re.search(r"\d", reference + answer))
    return is_equation(found) and not is_relation(gold) and not gives_value(found)


def gives_value(equation: Basic) -> bool:
    """Whether an equation says what something is: `x = 5`, `f(2) = 5`, `2 + 3 = 5`; not `2x = 10` or `x^2 = 5`."""
    first = equation.args[0] if not hasattr(equation, "_unsorted_args") else equation._unsorted_args[0]
    left = getattr(first, "lhs", getattr(equation, "lhs", first))
    return is_assignment_relation(equation) or isinstance(left, AppliedUndef) or not left.free_symbols


def close(gold: Basic, found: Basic) -> bool:
    """Whether two numbers are close relative to their size; math-verify rounds all to six decimals (1e-7 is 2e-7)."""
    for one, other in pairs(gold, found):
        if not (getattr(one, "is_number", False) and getattr(other, "is_number", False)):
            continue
        allowed = ROUNDED if one.has(Float) or other.has(Float) else EXACT
        try:
            left, right = complex(one.evalf(30)), complex(other.evalf(30))
        except (TypeError, ValueError, OverflowError):
            continue
        if abs(left - right) > allowed * max(abs(left), abs(right)):
            return False
    return True


def pairs(gold: Basic, found: Basic) -> Iterable[tuple[Basic, Basic]]:
    """The numbers to compare: the two themselves, or the members of two tuples of one length."""
    if isinstance(gold, Tuple) and isinstance(found, Tuple) and not isinstance(gold, FiniteSet):
        return zip(gold.args, found.args, strict=False)
    return [(gold, found)]


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
