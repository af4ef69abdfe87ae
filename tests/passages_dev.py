"""The other half of the passages by which repetition is measured: 30 sound, 30 degenerate, seen while tuning.

As `passages_heldout`, which was written first: other subjects, words and sizes.
"""

# ruff: noqa: E501  a passage stands on one line, as it is

import random
from collections.abc import Iterable
from fractions import Fraction


def lines(parts: Iterable[object]) -> str:
    return "\n".join(map(str, parts))


def gauss_jordan() -> str:
    m = [[Fraction(v) for v in row] for row in ([1, 2, 3, 1, 0, 0], [0, 1, 4, 0, 1, 0], [5, 6, 0, 0, 0, 1])]
    show = lambda: lines("[ " + " ".join(f"{v!s:>4}" for v in row) + " ]" for row in m)  # noqa: E731
    out = ["We invert the matrix by row operations on [A | I].", show()]
    for k in range(3):
        m[k] = [v / m[k][k] for v in m[k]]
        for r in range(3):
            if r != k and (f := m[r][k]):
                m[r] = [a - f * b for a, b in zip(m[r], m[k], strict=True)]
                out += ["", f"R{r + 1} → R{r + 1} − ({f}) R{k + 1}:", show()]
    return lines([*out, "", "The right half is the inverse."])


def flood_fill() -> str:
    grid = [
        list(row) for row in ("#########", "#S..#...#", "#.#.#.#.#", "#.#...#.#", "#.#####.#", "#......E#", "#########")
    ]
    out, frontier, step = ["Let me flood the maze from S, and draw it after each step."], [(1, 1)], 0
    while frontier and step < 14:
        step += 1
        new = []
        for r, c in frontier:
            for rr, cc in ((r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1)):
                if grid[rr][cc] in ".E":
                    grid[rr][cc] = "o"
                    new.append((rr, cc))
        frontier = new
        out += [f"Step {step}, {len(new)} new cells:", *("".join(row) for row in grid), ""]
    return lines(out)


def robot() -> str:
    r = c = 0
    out = ["The robot starts in the upper left corner of a 6 x 6 grid."]
    for move in "RRDDRDLDDRRR":
        r, c = r + (move == "D"), c + (move == "R") - (move == "L")
        out += [f"Move {move}:", *(" ".join("R" if (r, c) == (i, j) else "." for j in range(6)) for i in range(6))]
    return lines(out)


def signs() -> str:
    out = ["Solve |x − 1| + |x + 2| + |x − 4| = 9 by the signs of the three terms."]
    for n in range(8):
        s = ["nonnegative" if n >> k & 1 else "negative" for k in (2, 1, 0)]
        a, b = (
            sum(1 if n >> k & 1 else -1 for k in (2, 1, 0)),
            sum((v if n >> k & 1 else -v) for k, v in zip((2, 1, 0), (-1, 2, -4), strict=True)),
        )
        out.append(
            f"Case {n + 1}. Suppose that x − 1 is {s[0]}, x + 2 is {s[1]} and x − 4 is {s[2]}. The equation becomes {a}x + {b} = 9, hence x = {Fraction(9 - b, a)}, and we check whether this lies in the right interval."
        )
    return lines(out)


def jack() -> str:
    said = [
        "the malt that lay in",
        "the rat that ate",
        "the cat that killed",
        "the dog that worried",
        "the cow with the crumpled horn that tossed",
        "the maiden all forlorn that milked",
        "the man all tattered and torn that kissed",
        "the priest all shaven and shorn that married",
        "the cock that crowed in the morn that woke",
        "the farmer sowing his corn that kept",
    ]
    return "\n\n".join(
        "This is " + "\n".join([*said[:n][::-1], "the house that Jack built."]) for n in range(len(said) + 1)
    )


def gifts() -> str:
    days = [
        "first",
        "second",
        "third",
        "fourth",
        "fifth",
        "sixth",
        "seventh",
        "eighth",
        "ninth",
        "tenth",
        "eleventh",
        "twelfth",
    ]
    gave = [
        "a partridge in a pear tree",
        "two turtle doves",
        "three French hens",
        "four calling birds",
        "five gold rings",
        "six geese a-laying",
        "seven swans a-swimming",
        "eight maids a-milking",
        "nine ladies dancing",
        "ten lords a-leaping",
        "eleven pipers piping",
        "twelve drummers drumming",
    ]
    return "\n\n".join(
        f"On the {day} day of Christmas my true love gave to me\n" + ",\n".join(gave[: n + 1][::-1]) + "."
        for n, day in enumerate(days)
    )


def remainders() -> str:
    out = ["I try all residues modulo 25."]
    out += [f"n = {n}: n^2 + 3n + 1 = {n * n + 3 * n + 1} ≡ {(n * n + 3 * n + 1) % 25}" for n in range(25)]
    return lines([*out, "So the residue 0 is never hit."])


def pseudo_tests() -> str:
    rng = random.Random(8)
    out = ["class TestClamp(unittest.TestCase):"]
    for n in range(16):
        low, high, x = rng.randrange(10), rng.randrange(10, 20), rng.randrange(-5, 30)
        out += [
            f"    def test_case_{n}(self):",
            f"        self.assertEqual(clamp({x}, {low}, {high}), {max(low, min(high, x))})",
            "",
        ]
    return lines(["```python", *out, "```"])


def simplex() -> str:
    rng = random.Random(2)
    out = ["| step | x | y | s1 | s2 | z | ratio |", "|---|---|---|---|---|---|---|"]
    out += [
        f"| {n} | {rng.randrange(9)} | {rng.randrange(9)} | {rng.randrange(90)} | {rng.randrange(90)} | {rng.randrange(200)} | {rng.randrange(9)}/{rng.randrange(2, 9)} |"
        for n in range(1, 45)
    ]
    return lines(["The tableau after each pivot, in short:", *out])


def bisection() -> str:
    a, b, out = 1.0, 2.0, ["We bisect f(x) = x^3 − x − 2 on [1, 2]."]
    for n in range(1, 16):
        m = (a + b) / 2
        f = m**3 - m - 2
        a, b = (m, b) if f < 0 else (a, m)
        out.append(
            f"Step {n}: the midpoint is {m:.5f}, where f = {f:.5f} is {'negative' if f < 0 else 'positive'}, so the new interval is [{a:.5f}, {b:.5f}]."
        )
    return lines([*out, "The root is about 1.52138."])


def sorting() -> str:
    values, out = [9, 4, 7, 1, 8, 2, 6, 3], ["Insertion sort, one line per swap."]
    for i in range(1, len(values)):
        j = i
        while j and values[j - 1] > values[j]:
            values[j - 1], values[j] = values[j], values[j - 1]
            out.append(f"swap positions {j - 1} and {j}: {values}")
            j -= 1
    return lines(out)


def brute_force() -> str:
    out = ["Which pairs (a, b) with a ≤ b ≤ 8 satisfy a·b + a + b = 34?"]
    for a in range(1, 9):
        out += [
            f"a = {a}, b = {b}: {a * b} + {a} + {b} = {a * b + a + b}, {'yes' if a * b + a + b == 34 else 'no'}."
            for b in range(a, 9)
        ]
    return lines(out)


def glossary() -> str:
    terms = {
        "vertex": "a point of the graph",
        "edge": "a pair of two points",
        "path": "a walk without repeated points",
        "cycle": "a closed path",
        "tree": "a graph without closed paths that is connected",
        "forest": "a union of trees",
        "leaf": "a point with one neighbour",
        "degree": "how many neighbours a point has",
        "clique": "a set in which all are joined",
        "matching": "edges that share no point",
        "colouring": "a map that tells neighbours apart",
        "cut": "edges whose removal splits it",
    }
    return lines(f"**{term}**: {meaning}." for term, meaning in terms.items())


def zeros() -> str:
    out = ["The adjacency matrix of a path on ten points, as edges are added one by one."]
    for size in (3, 6, 9):
        out += [
            f"After {size} edges:",
            *(" ".join("1" if abs(i - j) == 1 and max(i, j) <= size else "0" for j in range(10)) for i in range(10)),
        ]
    return lines(out)


FUNCTION = """```python
def count_islands(grid):
    seen = set()
    islands = 0
    for row in range(len(grid)):
        for column in range(len(grid[0])):
            if grid[row][column] == 1 and (row, column) not in seen:
                islands += 1
                stack = [(row, column)]
                while stack:
                    r, c = stack.pop()
                    if (r, c) in seen:
                        continue
                    seen.add((r, c))
                    for dr, dc in ((0, 1), (1, 0), (0, -1), (-1, 0)):
                        if 0 <= r + dr < len(grid) and 0 <= c + dc < len(grid[0]) and grid[r + dr][c + dc] == 1:
                            stack.append((r + dr, c + dc))
    return islands
```"""

PROSE = [
    "A capacitor of two microfarads is charged to three hundred volts and then joined to an uncharged one of four. Charge is conserved, so the six hundred microcoulombs spread over six microfarads, and the common voltage is one hundred volts. The energy before was ninety millijoules, after it is thirty. The missing sixty went into heat and radiation, however small the resistance of the wire.",
    "The treaty of 1648 did not create the modern state in one stroke, as textbooks like to say. It confirmed rights that the estates had held for generations, and it left the emperor with more than a title. What it did was to make the balance of confessions a matter of law, with a fixed year as the measure, so that a prince who changed his faith could no longer take his subjects with him.",
    "To find the limit, multiply and divide by the conjugate. The numerator becomes the difference of the radicands, which is 3x, while the denominator is the sum of two roots, each of which behaves like x. So the quotient tends to three halves. Had the sign of x been negative, both roots would behave like −x, and the limit would be minus three halves. Only the first matters here.",
]

SOUND = {
    "Gauss-Jordan": gauss_jordan(),
    "flood fill, drawn after each step": flood_fill(),
    "robot on a grid": robot(),
    "eight cases of signs": signs(),
    "house that Jack built": jack(),
    "twelve days": gifts(),
    "residues": remainders(),
    "unit tests of a class": pseudo_tests(),
    "simplex table": simplex(),
    "bisection": bisection(),
    "insertion sort": sorting(),
    "brute force over pairs": brute_force(),
    "glossary": glossary(),
    "sparse matrices": zeros(),
    "code in thinking, draft and answer": "\n\n".join(
        [
            "A first version:",
            FUNCTION,
            "It visits each cell once. Could the recursion be too deep? There is none, the stack is a list. What about an empty grid? Then grid[0] fails, but the constraints exclude it.",
            "So I keep it:",
            FUNCTION,
            "Here is the solution:",
            FUNCTION,
            "It runs in time proportional to the number of cells.",
        ]
    ),
    "physics": PROSE[0],
    "history": PROSE[1],
    "limit": PROSE[2],
    "three subjects": "\n\n".join(PROSE),
    "waits with progress": 'So f(3) = 11. Wait, does the sum start at zero? Yes: then f(3) = 1 + 3 + 9 + 27 = 40. Hmm, the problem says "less than n", so the last term goes away: 13. Let me check that against f(2) = 1 + 3 = 4. The ratio grows towards 3, as it should. But wait, n = 3 means three terms? 1 + 3 + 9 = 13, yes. Now f(10) = (3^10 − 1)/2 = 29524. Let me verify with f(4) = 40 = (81 − 1)/2. Good. Wait, the question wants the remainder modulo 7. 29524 = 7 · 4217 + 5. Let me double-check: 7 · 4217 = 29519, and 5 more is 29524. So the answer is 5.',
    "Chinese steps": "第一步，求出两条直线的交点。联立方程得到三倍的横坐标等于六，所以横坐标是二，代入第一个方程，纵坐标是五。第二步，求过这一点且与第三条直线垂直的直线。第三条直线的斜率是负二，所以所求直线的斜率是二分之一。第三步，写出点斜式并整理成一般式：x减二倍的y加八等于零。第四步，检验：把交点代入，二减十加八等于零，成立；两条直线的斜率之积是负一，也成立。",
    "Chinese table": lines(
        [
            "| 年份 | 产量 | 增长 |",
            "| --- | --- | --- |",
            *(f"| {1990 + n} | {120 + n * n % 37} | {n * 7 % 13}% |" for n in range(24)),
            "由表可知产量总体上升。",
        ]
    ),
    "Russian proof": "Пусть дано натуральное число n, большее единицы. Если оно простое, доказывать нечего. Иначе оно делится на некоторое число между единицей и n, и по предположению индукции оба множителя раскладываются на простые. Перемножив разложения, получаем разложение самого n. Осталось доказать единственность: если есть два разложения, то простое число из первого делит произведение во втором, а значит, и один из множителей, то есть равно ему. Сокращаем и снова применяем индукцию.",
    "refrain": "\n\n".join(
        f"{line}\nand still the mill goes round."
        for line in (
            "The miller's boy has gone to sea,",
            "The miller's wife has sold the mare,",
            "There's snow upon the granary,",
            "There's nobody to grind for there,",
            "The water does not ask for whom,",
            "The moon looks in at every room,",
        )
    ),
    "config": lines(
        [
            "server {",
            *(
                f"    location /{name} {{ proxy_pass http://{name}:{8000 + n}; }}"
                for n, name in enumerate(
                    ["auth", "users", "orders", "cart", "search", "mail", "files", "jobs", "stats", "admin"]
                )
            ),
            "}",
        ]
    ),
    "addition carried out": lines(
        f"Column {n}: {a} + {b} + {c} = {a + b + c}, write {(a + b + c) % 10}, carry {(a + b + c) // 10}."
        for n, (a, b, c) in enumerate(
            [(7, 8, 0), (9, 6, 1), (3, 3, 1), (5, 9, 0), (2, 2, 1), (8, 8, 0), (6, 1, 1), (4, 7, 0)], 1
        )
    ),
    "LaTeX alignment": "\\begin{align}\n"
    + lines(
        f"S_{{{n}}} &= S_{{{n - 1}}} + {n}^2 = {sum(k * k for k in range(n))} + {n * n} = {sum(k * k for k in range(n + 1))} \\\\"
        for n in range(1, 21)
    )
    + "\n\\end{align}",
    "check of options": "Option A says that the reaction is exothermic. The bonds formed are stronger than those broken, so this is true. Option B says that the reaction is first order. The table shows that doubling the concentration doubles the rate, so this is true as well. Option C says that a catalyst shifts the equilibrium. A catalyst speeds up both directions alike, so this is false. Option D says that raising the temperature favours the products. For an exothermic reaction it does the contrary, so this is false. Two statements are true.",
    "binary counting": lines(f"{n:2d} = {n:05b} has {n.bit_count()} ones" for n in range(32)),
    "letter to the editor": "Sir, your correspondent believes that the old bridge should be pulled down because it is narrow. It is narrow, and for that reason nobody drives across it at more than walking pace, so that children can fish from it and old men can lean on it. A wide bridge would be crossed by everybody and used by no one. Let him who is in a hurry take the new road. I remain, and so I hope will the bridge.",
}

LEAD = "Okay, so I need to find the number of ways to tile the strip. First, small cases. "
FRUIT = [
    "apple",
    "pear",
    "plum",
    "cherry",
    "peach",
    "grape",
    "melon",
    "lemon",
    "lime",
    "fig",
    "date",
    "mango",
    "papaya",
    "guava",
    "kiwi",
    "banana",
    "orange",
    "quince",
    "apricot",
    "currant",
]


def drawn(pool: list[str], count: int, seed: int) -> str:
    rng = random.Random(seed)
    return " ".join(rng.choice(pool) for _ in range(count))


STEPS = [
    "Consider the first tile. It covers either one cell or two, and in both cases what is left is a shorter strip of the same kind, for which we know the number.",
    "That leads to a recurrence. With the two starting values it can be solved by hand, or by means of its characteristic polynomial, which has two real roots.",
    "But I should make sure that no tiling has been counted twice. Two tilings that begin with different tiles are different, so this is fine.",
    "Hold on, the colours have not been taken into account. Each tile can have one of two colours, so that every term gets a factor.",
]

DEGENERATE = {
    "one short sentence": LEAD + "That is not possible. " * 90,
    "one long sentence": LEAD
    + "If we put a long tile at the beginning, then the rest of the strip has two cells less, and we know how many tilings it has. "
    * 14,
    "paragraph of two": LEAD + (STEPS[0] + " " + STEPS[1] + "\n\n") * 9,
    "phrase run in a sentence": "We add one and " + "one and " * 90,
    "one token": LEAD + " 0" * 400,
    "dots": LEAD + "." * 900,
    "newlines": LEAD + "\n\n" * 300,
    "tabs": LEAD + "\t\n" * 250,
    "counter": LEAD + " ".join(f"So for n = {n} it does not work, let me try n = {n + 1}." for n in range(17, 90)),
    "Chinese counter": "先设未知数。" + "".join(f"那么我再试试第{n}种情况，好像也不行。" for n in range(5, 70)),
    "Russian counter": "Проверим числа. "
    + " ".join(f"Может быть, ответ равен {n}, но это не так." for n in range(40, 110)),
    "random numbers": LEAD
    + " ".join(f"Let me guess {random.Random(n).randrange(10_000)} and see. It does not fit." for n in range(80)),
    "letters": "Now "
    + " ".join(
        f"if {'abcdefghijklmnopqrstuvwxyz'[n % 26]} is the last letter, then the word cannot be a palindrome."
        for n in range(52)
    ),
    "fruit": "What is in the basket? "
    + " ".join(f"Maybe there is a {name} in the basket, since I like the {name} very much." for name in FRUIT * 3),
    "growing phrase": "\n".join("He said that " + "she said that " * n + "it rains." for n in range(40)),
    "growing sum": "\n".join("S = " + " + ".join(map(str, range(1, n))) for n in range(2, 50)),
    "doubts in any order": LEAD
    + drawn(
        [
            "But wait.",
            "Let me think again about this.",
            "I am not sure whether this is correct.",
            "Maybe I should recount the tilings.",
            "No, I have done that already.",
            "Hmm, so what is the answer?",
            "Let me start over.",
        ],
        140,
        5,
    ),
    "cycle of four paragraphs": "\n\n".join(STEPS * 6),
    "list that never ends": lines(
        f"{n}. {drawn(['Drink more water', 'Sleep eight hours', 'Go for a walk', 'Eat fresh fruit', 'Call an old friend', 'Read a good book'], 1, n)}."
        for n in range(1, 160)
    ),
    "numbered reasons": lines(f"Reason {n}: it is good for you and for everybody around you." for n in range(1, 110)),
    "Chinese sentence": "设长度为n。" + "所以答案是不能确定的。" * 60,
    "Chinese doubts": "先算一下。"
    + "".join(
        random.Random(n).choice(
            [
                "等等，我再想想。",
                "不对，这样算是错的。",
                "让我重新计算一遍。",
                "嗯，好像又是对的。",
                "可是题目不是这么说的。",
            ]
        )
        for n in range(150)
    ),
    "code line": "```c\n" + 'printf("%d\\n", a[i]);\n' * 110 + "```",
    "constants without end": "```python\n" + lines(f"CONSTANT_{n} = {n}" for n in range(1, 260)),
    "brackets": "The expression is " + "((" * 400,
    "LaTeX": "We get $x = " + "\\sqrt{1 + " * 170,
    "syllables": "La " * 250,
    "decimal": "So the value is 3." + "3" * 900,
    "loop and answer": LEAD
    + STEPS[0]
    + " "
    + "Let me count the tilings of length five again. " * 45
    + STEPS[3]
    + " The answer is 21.",
    "same rows": "| a | b |\n|---|---|\n" + "| yes | no |\n" * 140,
}
