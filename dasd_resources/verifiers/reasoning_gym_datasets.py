"""Which of reasoning-gym's datasets may be judged, and why the others may not (its 106 scorers read at 0.1.25).

A test finds every dataset of the installed version in exactly one of the three tables, and nothing that evaluates in
what the scorers of the first one call.
"""

# Only compare: 33 inherit the plain `==`, the rest parse numbers, lists or moves and follow them.
REASONING_GYM_DATASETS = frozenset((
    "ab", "acre", "advanced_geometry", "aiw", "arc_1d", "arc_agi", "base_conversion", "basic_arithmetic", "bf",
    "binary_alternation", "boxnet", "caesar_cipher", "calendar_arithmetic", "chain_sum", "circuit_logic",
    "color_cube_rotation", "complex_arithmetic", "count_bits", "count_primes", "course_schedule", "cryptarithm",
    "decimal_arithmetic", "decimal_chain_sum", "dice", "emoji_mystery", "family_relationships",
    "fraction_simplification", "futoshiki", "gcd", "graph_color", "group_anagrams", "isomorphic_strings",
    "jugs", "kakurasu", "knight_swap", "knights_knaves", "largest_island", "lcm", "leg_counting",
    "letter_counting", "letter_jumble", "list_functions", "mahjong_puzzle", "manipulate_matrix", "maze",
    "mini_sudoku", "modulo_grid", "needle_haystack", "number_filtering", "number_format", "number_sequence",
    "palindrome_generation", "palindrome_partitioning", "path_star", "polynomial_equations", "pool_matrix",
    "power_function", "prime_factorization", "products", "quantum_lock", "ransom_note", "rearc",
    "rectangle_count", "rotate_matrix", "rotten_oranges", "rubiks_cube", "rush_hour", "self_reference",
    "sentence_reordering", "shortest_path", "simple_equations", "simple_geometry", "sokoban", "spell_backward",
    "string_manipulation", "string_splitting", "string_synthesis", "sudoku", "survo", "syllogism",
    "time_intervals", "tower_of_hanoi", "tsumego", "word_ladder", "word_sequence_reversal", "word_sorting",
    "zebra_puzzles",
))  # fmt: skip

# These eval(), or let sympy eval(), the answer or the row's metadata: they run in the sandbox or not at all.
EVALUATED_DATASETS = frozenset((
    "binary_matrix", "bitwise_arithmetic", "countdown", "intermediate_integration", "n_queens",
    "polynomial_multiplication", "puzzle24", "simple_integration", "spiral_matrix", "string_insertion",
))  # fmt: skip

# Their full score does not mean a right answer, or cannot be had from a stored row.
EXCLUDED_DATASETS = {
    "codeio": 'takes "3" for 3, and compares any other answer by an edit distance of unbounded time: use `json`',
    "coin_flip": "takes 0 for every probability below 1e-4, and computes 10**n of an answer 1e<n>: use `math`",
    "composite": "has no scorer of its own: name the dataset in each row's metadata, `source_dataset`",
    "figlet_font": "takes any answer with ten right letters in place: use `exact`",
    "game_of_life": "takes any larger board that holds the right one: use `json`",
    "game_of_life_halting": "takes every answer that is not empty, True for False: use `exact`",
    "gsm_symbolic": "reads the first number without its sign, so 5 of both -5 and `5 or 6`: use `math`",
    "number_sorting": "takes sorted numbers that are each wrong by up to 1, and evaluates the reference: use `exact`",
    "propositional_logic": "takes whatever follows, a premise said again included, in 2**names steps",
}

# These accept many answers and name none in the row.
WITHOUT_REFERENCE = frozenset({"boxnet", "graph_color", "rubiks_cube", "rush_hour"})
