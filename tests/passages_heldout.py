"""The held-out half of the passages by which repetition is measured: 30 sound ones, 30 degenerate ones.

Written before the filter was, and not looked at while it was tuned (docs/log.md). No passage is a model's: each is made
here, by hand or by a small program that does what it describes.
"""

# ruff: noqa: E501  a passage stands on one line, as it is

import random
from collections.abc import Iterable
from fractions import Fraction
from itertools import pairwise
from math import gcd


def lines(parts: Iterable[object]) -> str:
    return "\n".join(map(str, parts))


def row_reduction() -> str:
    rows = [[2, 1, -1, 8], [-3, -1, 2, -11], [-2, 1, 2, -3], [1, 4, 3, 7]]
    matrix = [[Fraction(value) for value in row] for row in rows]

    def shown() -> str:
        return "\\begin{pmatrix} " + " \\\\ ".join(" & ".join(map(str, row)) for row in matrix) + " \\end{pmatrix}"

    out = ["We bring the augmented matrix to echelon form.", f"$${shown()}$$"]
    for column in range(3):
        pivot = matrix[column][column]
        for below in range(column + 1, 4):
            factor = matrix[below][column] / pivot
            matrix[below] = [a - factor * b for a, b in zip(matrix[below], matrix[column], strict=True)]
            out += [f"Subtract {factor} times row {column + 1} from row {below + 1}:", f"$${shown()}$$"]
    return lines([*out, "The last row shows whether the system is consistent."])


def life() -> str:
    cells = {(1, 2), (2, 3), (3, 1), (3, 2), (3, 3)}
    out = ["Let's follow the glider on an 8 by 8 board."]
    for step in range(9):
        grid = [" ".join("#" if (r, c) in cells else "." for c in range(8)) for r in range(8)]
        out += [f"After step {step}:", *grid, ""]
        near = [(r + a, c + b) for r, c in cells for a in (-1, 0, 1) for b in (-1, 0, 1) if (a, b) != (0, 0)]
        cells = {cell for cell in near if near.count(cell) == 3 or (near.count(cell) == 2 and cell in cells)}
    return lines([*out, "So the pattern moves one cell down and right every four steps."])


def sudoku_trace() -> str:
    rng = random.Random(11)
    rows = [[(3 * (r % 3) + r // 3 + c) % 9 + 1 for c in range(9)] for r in range(9)]
    hidden = rng.sample([(r, c) for r in range(9) for c in range(9)], 12)
    out = ["I fill in what is forced, and print the grid after every number."]
    for count in range(len(hidden) + 1):
        left = set(hidden[count:])
        out += [" ".join("_" if (r, c) in left else str(rows[r][c]) for c in range(9)) for r in range(9)]
        if count < len(hidden):
            r, c = hidden[count]
            out.append(f"\nRow {r + 1} lacks only {rows[r][c]} in column {c + 1}, so it goes there.\n")
    return lines(out)


def eight_cases() -> str:
    out = ["We show that $abc(a+b)(b+c)(c+a)$ is even by looking at the parities of $a$, $b$ and $c$."]
    for index in range(8):
        a, b, c = ("even" if index >> k & 1 else "odd" for k in (2, 1, 0))
        reason = "a factor of the product is even" if "even" in (a, b, c) else "all three sums of two are even"
        out.append(f"Case {index + 1}: $a$ is {a}, $b$ is {b} and $c$ is {c}. Then {reason}, so the product is even.")
    return lines([*out, "In every case the product is even, which proves the claim."])


def kingdom() -> str:
    places = ["kingdom", "city", "town", "street", "lane", "yard", "house", "room", "bed", "basket"]
    out = []
    for size in range(1, len(places) + 1):
        out.append(f"This is the key of the {places[0]}.")
        for outer, inner in pairwise(places[:size]):
            out.append(f"In that {outer} there is a {inner};")
        out.append("")
    return lines([*out, "And in that basket there are some flowers."])


def table_of_powers() -> str:
    rows = [f"| {n} | {n**2} | {n**3} | {n**4 % 10} |" for n in range(1, 41)]
    return lines(
        [
            "Here are the powers that we need.",
            "| n | n^2 | n^3 | last digit of n^4 |",
            "| --- | --- | --- | --- |",
            *rows,
        ]
    )


def unit_tests() -> str:
    rng = random.Random(3)
    tests = [
        f"    assert gcd_of({a}, {b}) == {gcd(a, b)}"
        for a, b in ((rng.randrange(99), rng.randrange(1, 99)) for _ in range(28))
    ]
    return lines(["Let me test it.", "```python", "def test_gcd_of():", *tests, "```", "All of them pass."])


def inserts() -> str:
    names = [
        "Ada",
        "Bo",
        "Cy",
        "Dee",
        "Eli",
        "Fay",
        "Gus",
        "Hal",
        "Ida",
        "Jay",
        "Kit",
        "Lou",
        "Mae",
        "Ned",
        "Oda",
        "Pip",
        "Rex",
        "Sue",
        "Ted",
        "Uma",
        "Vic",
        "Wes",
        "Xen",
        "Yan",
        "Zoe",
    ]
    rows = [
        f"INSERT INTO people (id, name, city, age) VALUES ({i}, '{n}', '{c}', {20 + (i * 7) % 45});"
        for i, (n, c) in enumerate(zip(names, ["Rome", "Oslo", "Lima", "Cairo", "Quito"] * 5, strict=True))
    ]
    return lines(["First the data:", *rows, "Then the query counts the people of each city."])


def breadth_first() -> str:
    graph = {n: [m for m in (2 * n, 2 * n + 1, n + 5) if m <= 20] for n in range(1, 21)}
    queue, seen, out = [1], {1}, ["We search breadth first from node 1."]
    while queue:
        node = queue.pop(0)
        new = [m for m in graph[node] if m not in seen]
        seen |= set(new)
        queue += new
        out.append(
            f"Visit node {node}. Its new neighbours are {new}. The queue is now {queue} and {len(seen)} nodes are seen."
        )
    return lines(out)


def collatz() -> str:
    n, out = 27, []
    while n != 1:
        out.append(str(n))
        n = 3 * n + 1 if n % 2 else n // 2
    return f"Starting from 27 the sequence is {' → '.join(out)} → 1, which takes {len(out)} steps. Its greatest term is 9232."


def divisibility() -> str:
    out = ["Which numbers between 100 and 150 are prime? I go through the odd ones."]
    for n in range(101, 151, 2):
        factor = next((d for d in (3, 5, 7, 11) if n % d == 0), None)
        out.append(
            f"{n} = {factor} · {n // factor}, so it is not prime."
            if factor
            else f"{n} has no factor among 3, 5, 7, 11, so it is prime."
        )
    return lines([*out, "That makes ten primes."])


def countries() -> str:
    pairs = """France Paris, Italy Rome, Spain Madrid, Norway Oslo, Sweden Stockholm, Finland Helsinki, Poland Warsaw,
    Austria Vienna, Hungary Budapest, Greece Athens, Turkey Ankara, Egypt Cairo, Kenya Nairobi, Ghana Accra, Peru Lima,
    Chile Santiago, Cuba Havana, Canada Ottawa, Japan Tokyo, China Beijing, India Delhi, Nepal Kathmandu, Iran Tehran,
    Iraq Baghdad, Qatar Doha, Oman Muscat, Fiji Suva, Laos Vientiane, Mali Bamako, Chad Ndjamena"""
    return lines(
        f"{i}. The capital of {pair.split()[0]} is {pair.split()[1]}." for i, pair in enumerate(pairs.split(","), 1)
    )


def recurrence() -> str:
    out, a, b = ["dp[0] = 1", "dp[1] = 2"], 1, 2
    for n in range(2, 36):
        out.append(f"dp[{n}] = dp[{n - 1}] + dp[{n - 2}] = {b} + {a} = {a + b}")
        a, b = b, a + b
    return lines(["Filling the table from below:", *out, f"So there are {b} ways."])


def squaring() -> str:
    out, value = ["We need 7^200 modulo 1009, by repeated squaring."], 7
    for power in range(1, 9):
        out.append(f"7^{2**power} ≡ {value}^2 = {value * value} ≡ {value * value % 1009} (mod 1009).")
        value = value * value % 1009
    return lines([*out, "Since 200 = 128 + 64 + 8, we multiply the three of these."])


def records() -> str:
    rng = random.Random(5)
    rows = [
        f'  {{"id": {i}, "title": "{rng.choice(["Dune", "Emma", "Ulysses", "Kim", "Walden"])}", "price": {rng.randrange(5, 40)}.{rng.randrange(10, 99)}, "stock": {rng.randrange(30)}}},'
        for i in range(1, 25)
    ]
    return lines(["```json", "[", *rows, "]", "```"])


CODE = """```python
def longest_run(values):
    best = current = 0
    previous = None
    for value in values:
        current = current + 1 if value == previous else 1
        best = max(best, current)
        previous = value
    return best
```"""

SOUND = {
    "row reduction of a 4 by 4 system": row_reduction(),
    "game of life, printed after each step": life(),
    "sudoku, printed after each number": sudoku_trace(),
    "eight cases": eight_cases(),
    "cumulative rhyme": kingdom(),
    "table of powers": table_of_powers(),
    "unit tests": unit_tests(),
    "SQL inserts": inserts(),
    "breadth-first search": breadth_first(),
    "Collatz sequence": collatz(),
    "trial division": divisibility(),
    "list of capitals": countries(),
    "recurrence": recurrence(),
    "repeated squaring": squaring(),
    "JSON records": records(),
    "code twice": f"I scan once and keep the length of the current run.\n\n{CODE}\n\nFor [1, 1, 2, 2, 2] this gives 3, as it should. An empty list gives 0.\n\nHere is the solution:\n\n{CODE}\n\nIt takes linear time and constant space.",
    "truth table": lines(
        [
            "| p | q | r | s | p∧q | r∨s | (p∧q)→(r∨s) |",
            "|---|---|---|---|---|---|---|",
            *(
                f"| {p} | {q} | {r} | {s} | {p & q} | {r | s} | {1 - (p & q) | (r | s)} |"
                for p in (0, 1)
                for q in (0, 1)
                for r in (0, 1)
                for s in (0, 1)
            ),
            "Only one row is 0.",
        ]
    ),
    "multiplication table": lines(" ".join(f"{a * b:4d}" for b in range(1, 13)) for a in range(1, 13)),
    "checks that each add something": 'Let me compute 17 · 24. 17 · 20 = 340 and 17 · 4 = 68, so 408. Wait, let me check that with 24 · 17 = 24 · 10 + 24 · 7 = 240 + 168 = 408. Good. Hmm, but the question asks for the number of pairs, so I have to halve it: 204. Wait, are the pairs ordered? It says "handshakes", so no. But then nobody shakes their own hand, and I counted those: let me redo this. With 17 people there are 17 · 16 / 2 = 136 handshakes. Hmm, where does the 24 come from? Oh wait, there are two rooms, and the second one has 24 people. Then there are 24 · 23 / 2 = 276 handshakes in it. Together that is 412. Let me double-check by counting all 41 people, 41 · 40 / 2 = 820, and removing the pairs across rooms, 17 · 24 = 408: 820 − 408 = 412. Both ways agree.',
    "induction": "We prove that the sum of the first n odd numbers is n^2. For n = 1 the sum is 1, and 1^2 = 1. Suppose that the claim holds for some n, that is 1 + 3 + … + (2n − 1) = n^2. The next odd number is 2n + 1. Adding it to both sides gives 1 + 3 + … + (2n − 1) + (2n + 1) = n^2 + 2n + 1 = (n + 1)^2, which is the claim for n + 1. By induction it holds for all n. There is also a picture of this: each odd number is a corner of cells that turns a square into the next larger one.",
    "villanelle": "The river keeps the colour of the rain.\nI learned the names of birds along the shore.\nWhat goes with autumn will come back again.\n\nThe ferry and the slow suburban train\ngo by the houses where we lived before.\nThe river keeps the colour of the rain.\n\nI wrote it in the dust upon the pane,\nI said it to the lock upon the door:\nwhat goes with autumn will come back again.\n\nThe farmer counts the sacks of yellow grain,\nhis daughter sweeps the husks across the floor.\nThe river keeps the colour of the rain.\n\nAnd if the early frost should leave a stain\non every field, we'll mend it as we swore.\nWhat goes with autumn will come back again.\n\nSo sing it softly, like an old refrain,\nfor those who cannot hear it any more:\nthe river keeps the colour of the rain;\nwhat goes with autumn will come back again.",
    "song with a chorus": "\n\n".join(
        f"{verse}\n\nOh, row the boat to morning, row the boat to day,\nthe lamps are in the harbour and the night is on its way."
        for verse in (
            "We left the town at seven with the lanterns burning low,\nmy brother at the tiller and the dog curled up below.",
            "The wind was out of patience and the sail was out of thread,\nso we sang to one another what our grandmother had said.",
            "And when the cliffs were showing and the gulls came down to see,\nwe counted all our bruises, and were happy, you and me.",
        )
    ),
    "clauses of a lease": lines(
        f"{i}. The tenant shall {what}."
        for i, what in enumerate(
            [
                "pay the rent on the first day of each month",
                "keep the garden in good order",
                "not keep animals other than fish without written consent",
                "give two months' notice before leaving",
                "allow the landlord to inspect the flat once a year",
                "return all keys on leaving",
                "not alter the electrical installation",
                "report damage from water within a day",
                "insure his own furniture",
                "clean the stairs every third week",
                "not store petrol in the cellar",
                "bear the cost of small repairs up to 80 euros",
            ],
            1,
        )
    ),
    "Chinese cases": "设a、b、c为整数，讨论它们除以二的余数。\n情况一：三个数都是偶数，乘积显然是偶数。\n情况二：a、b为偶数，c为奇数，乘积含有因子a，仍是偶数。\n情况三：a、c为偶数，b为奇数，同理乘积是偶数。\n情况四：b、c为偶数，a为奇数，乘积仍是偶数。\n情况五：只有a为偶数，则乘积含有偶数因子a。\n情况六：只有b为偶数，则乘积含有偶数因子b。\n情况七：只有c为偶数，则乘积含有偶数因子c。\n情况八：三个数都是奇数，此时a+b为偶数，所以整个式子仍是偶数。\n综上，无论哪种情况，结论都成立。",
    "Chinese prose": "首先我们需要弄清楚题目问的是什么。一个水池有两根进水管和一根排水管，单开甲管要六个小时注满，单开乙管要八个小时注满，单开丙管要十二个小时把满池的水放完。现在三管齐开，问多少小时可以注满。设水池的容量为一，那么甲管每小时注入六分之一，乙管每小时注入八分之一，丙管每小时放出十二分之一。三者合起来每小时净增二十四分之四加三减二，也就是二十四分之五。因此注满需要四点八个小时。再检验一遍：四点八小时内甲管注入零点八池，乙管注入零点六池，丙管放出零点四池，合计正好一池，没有问题。",
    "dialogue": "A: Did you bring the map?\nB: I thought you had it.\nA: I had it in the car. Then you took it to look for the bridge.\nB: That was the other map, the one with the coffee on it.\nA: So where is this one?\nB: On the roof, I suppose. You put everything on the roof.\nA: I put the sandwiches on the roof once, in 1998.\nB: And the camera.\nA: And the camera. Fine. Which way is the sun?\nB: Behind the hill.\nA: Which hill?\nB: The one that is not on the map.",
    "assembly": lines(
        f"    {op} {a}, {b}"
        for op, a, b in [
            ("mov", "eax", "[rdi]"),
            ("add", "eax", "4"),
            ("mov", "[rdi]", "eax"),
            ("cmp", "eax", "esi"),
            ("jl", "loop1", "near"),
            ("mov", "ebx", "eax"),
            ("shl", "ebx", "2"),
            ("xor", "ecx", "ecx"),
            ("mov", "edx", "[rsi+4]"),
            ("add", "edx", "ebx"),
            ("mov", "[rsi+8]", "edx"),
            ("sub", "edx", "1"),
            ("mov", "ecx", "edx"),
            ("and", "ecx", "7"),
            ("cmp", "ecx", "3"),
            ("je", "done", "near"),
            ("mov", "eax", "1"),
            ("mov", "ebx", "2"),
            ("add", "eax", "ebx"),
            ("mov", "[rdi+16]", "eax"),
        ]
    ),
    "Euclid": "gcd(1071, 462): 1071 = 2 · 462 + 147. Then gcd(462, 147): 462 = 3 · 147 + 21. Then gcd(147, 21): 147 = 7 · 21 + 0. So the gcd is 21.\n\nNow back: 21 = 462 − 3 · 147, and 147 = 1071 − 2 · 462, so 21 = 462 − 3 · (1071 − 2 · 462) = 7 · 462 − 3 · 1071. Check: 7 · 462 = 3234 and 3 · 1071 = 3213, and their difference is 21. Therefore x = −3 and y = 7 is one solution, and all others are x = −3 + 22k, y = 7 − 51k for an integer k.",
    "HTML list": lines(
        [
            "<ul>",
            *(
                f'  <li class="item"><a href="/{name}">{name.title()}</a></li>'
                for name in [
                    "home",
                    "about",
                    "news",
                    "team",
                    "jobs",
                    "press",
                    "help",
                    "blog",
                    "shop",
                    "cart",
                    "login",
                    "terms",
                    "privacy",
                    "contact",
                    "status",
                    "docs",
                ]
            ),
            "</ul>",
        ]
    ),
    "water jugs": lines(
        f"Step {i}: {what} Now the jugs hold {a} and {b} litres."
        for i, (what, a, b) in enumerate(
            [
                ("fill the large jug.", 0, 5),
                ("pour it into the small one.", 3, 2),
                ("empty the small one.", 0, 2),
                ("pour the rest over.", 2, 0),
                ("fill the large jug again.", 2, 5),
                ("top up the small one.", 3, 4),
                ("empty the small one; the large one has what we want.", 0, 4),
            ],
            1,
        )
    ),
}

LEAD = "Let me set up the problem. There are three unknowns and two equations, so I look for integers. "
NAMES = [
    "Marlow",
    "Keats",
    "Byron",
    "Blake",
    "Donne",
    "Swift",
    "Pope",
    "Gray",
    "Burns",
    "Scott",
    "Hardy",
    "Wells",
    "Shaw",
    "Wilde",
    "Yeats",
    "Joyce",
    "Woolf",
    "Eliot",
    "Auden",
    "Larkin",
    "Hughes",
    "Plath",
    "Heaney",
    "Carroll",
    "Dickens",
    "Austen",
    "Bronte",
    "Defoe",
    "Sterne",
    "Milton",
]


def shuffled(pool: list[str], count: int, seed: int) -> str:
    rng = random.Random(seed)
    return " ".join(rng.choice(pool) for _ in range(count))


PARAGRAPHS = [
    "The first thing to notice is that the function is continuous on the closed interval, so that it attains its maximum somewhere. We do not know where, but the derivative will tell us, and the end points have to be looked at as well.",
    "Taking the derivative and setting it to zero leads to a quadratic equation, whose discriminant is positive, so that there are two critical points. One of them lies outside the interval and can be ignored for our purpose.",
    "It remains to compare the value at the critical point with the values at both ends. Since the function grows at first and then falls, the critical point must be the maximum, but let us look at this once more from the beginning.",
]

DEGENERATE = {
    "one sentence": LEAD + "So the remainder has to be zero in this case as well. " * 40,
    "one paragraph": LEAD + "\n\n" + (PARAGRAPHS[0] + "\n\n") * 8,
    "phrase run": "The list goes on with the second group, " + "and then the next one, " * 60,
    "one word": LEAD + "So the value is the " + "the " * 300,
    "exclamation marks": LEAD + "Yes" + "!" * 500,
    "newlines": LEAD + "\n" * 400,
    "blank lines with spaces": LEAD + "  \n" * 300,
    "counter": LEAD + " ".join(f"Wait, maybe it is {n}." for n in range(301, 440)),
    "Chinese counter": "我们先试一下小的数。" + "".join(f"或许结果等于{n}吧，再看看。" for n in range(12, 100)),
    "random numbers": LEAD
    + " ".join(
        f"Hmm, what if the total were {random.Random(n).randrange(1000)}? No, that cannot be right either."
        for n in range(70)
    ),
    "letters": LEAD
    + " ".join(
        f"Perhaps the right option is {'ABCDE'[(n * n + n) % 5]}, but I am not sure about it." for n in range(60)
    ),
    "names": "Who wrote this? "
    + " ".join(f"It could be by {name}, but {name} did not write in this manner." for name in NAMES * 2),
    "growing phrase": "It was " + ", ".join("very " * n + "cold" for n in range(1, 45)),
    "growing list": "Let me list them.\n" + lines(", ".join(map(str, range(1, n))) for n in range(2, 60)),
    "doubts in any order": LEAD
    + shuffled(
        [
            "Wait, let me check this again.",
            "Hmm, that does not look right.",
            "Let me compute it once more.",
            "No, that is wrong.",
            "Actually, I think it was right.",
            "But then the sum would be odd.",
        ],
        130,
        1,
    ),
    "cycle of paragraphs": "\n\n".join(PARAGRAPHS * 6),
    "virtues without end": lines(
        f"{n}. {what}"
        for n, what in enumerate(
            [
                "Be kind to others.",
                "Work hard every day.",
                "Keep your promises.",
                "Listen to your friends.",
                "Take care of your health.",
                "Never stop learning.",
                "Say thank you often.",
            ]
            * 20,
            1,
        )
    ),
    "items without end": lines(f"- Item {n}: the description of item {n} goes here." for n in range(1, 130)),
    "Chinese sentence": "答案应当是七。" + "不对，我再检查一遍这个结果是否正确。" * 45,
    "Russian sentence": "Начнём с начала. " + "Значит, ответ не может быть больше десяти. " * 40,
    "one line of code": "```python\n" + "    total = total + values[index]\n" * 120,
    "branches without end": "```python\ndef square(n):\n"
    + lines(f"    elif n == {n}:\n        return {n}" for n in range(2, 150)),
    "closing tags": "<div>" * 5 + "</div></div></span>" * 120,
    "nested fractions": "The continued fraction is $1 + " + "\\frac{1}{1 + " * 150,
    "laughter": "And everybody went " + "ha-" * 250,
    "digits": "The quotient is 0." + "142857" * 150,
    "loop that recovers": LEAD
    + PARAGRAPHS[1]
    + " "
    + "Let me think about the third equation again. " * 60
    + PARAGRAPHS[2]
    + " So the answer is 12.",
    "letters without end": "The key is " + "A" * 1200,
    "yes and no": LEAD + "Is it even? " + "Yes. No. " * 180,
    "rows without end": "| name | count | sum |\n| --- | --- | --- |\n" + "| total | 0 | 0 |\n" * 130,
}
