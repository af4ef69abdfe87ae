"""Which questions a domain's quota lets be asked: within the number, in the recipe's order, and for good."""

from pathlib import Path

import pytest
from test_prompt_lines import Landing

from dasd_assets.rules.quotas import choose_asked, outdated_quotas
from dasd_assets.withdrawals import undo_withdrawal, withdraw
from dasd_resources.recipe import Recipe, load_recipe


def recipe(order: dict[str, str] | None = None, **quotas: int) -> Recipe:
    document = load_recipe("demo").model_dump()
    document["generation"] |= {"questions_per_domain": quotas, "question_order": order or {}}
    return Recipe.model_validate(document)


def question(number: int, domain: str = "math", words: int = 1) -> dict[str, object]:
    return {"question": f"What is {number} + 1?", "domain": domain, "reference_answer": "so " * words}


@pytest.fixture
def landing(tmp_path: Path) -> Landing:
    return Landing(tmp_path)


def choose(landing: Landing, by: Recipe, batch: str) -> None:
    with landing.lake.commit("{}") as transaction:
        choose_asked(transaction, by, batch, list(landing.files))


def settle(landing: Landing, by: Recipe) -> list[str]:
    done: list[str] = []
    while outdated := outdated_quotas(landing.lake, by, list(landing.files)):
        done.append(next(batch for batch in landing.files if batch in outdated))
        assert len(done) < 10, f"never settles: {outdated}"
        choose(landing, by, done[-1])
    return done


def asked(landing: Landing) -> set[str]:
    query = "SELECT question FROM asked_prompts JOIN prompts USING (prompt_id) WHERE asked"
    return set(landing.lake.read(query)["question"])


def test_without_quotas_there_is_nothing_to_choose(landing: Landing) -> None:
    landing.land("a", question(1))
    assert settle(landing, recipe()) == []
    choose(landing, recipe(), "a")
    assert landing.lake.read("FROM asked_prompts").is_empty()


def test_a_quota_is_of_all_batches_and_what_is_chosen_stays_so(landing: Landing) -> None:
    landing.land("a", *[question(number) for number in range(6)], question(9, "code"))
    assert settle(landing, recipe(math=4)) == ["a"]
    first = asked(landing)
    assert len(first) == 4
    landing.land("b", *[question(number) for number in range(10, 16)])
    assert settle(landing, recipe(math=4)) == ["b"]
    assert asked(landing) == first
    assert settle(landing, recipe(math=8))
    more = asked(landing)
    assert len(more) == 8 and more > first
    settle(landing, recipe(math=2))
    assert len(asked(landing)) == 2 and asked(landing) < first
    settle(landing, recipe(math=8))
    assert asked(landing) == more
    del landing.files["a"]
    settle(landing, recipe(math=8))
    assert len(asked(landing) - more) == 6 - len(more - {f"What is {number} + 1?" for number in range(6)})


def test_the_longest_reference_answers_come_first_where_the_recipe_says_so(landing: Landing) -> None:
    landing.files = {"a": [], "b": []}
    landing.land("a", question(1, words=2), question(2, words=9))
    landing.land("b", question(3, words=5), question(4), {"question": "What is 5 + 1?", "domain": "math"})
    by = recipe({"math": "longest_reference_first"}, math=2)
    settle(landing, by)
    assert asked(landing) == {"What is 2 + 1?", "What is 3 + 1?"}


def test_a_withdrawn_questions_place_is_anothers_until_it_comes_back(landing: Landing) -> None:
    landing.land("a", *[question(number) for number in range(4)])
    by = recipe(math=2)
    settle(landing, by)
    first = asked(landing)
    [(key, text)] = landing.lake.read(
        "SELECT prompt_id, question FROM asked_prompts JOIN prompts USING (prompt_id) WHERE position = 1"
    ).rows()
    withdraw(landing.lake, [key], [], "a claim")
    landing.settle()
    settle(landing, by)
    assert len(asked(landing)) == 2 and text not in asked(landing)
    undo_withdrawal(landing.lake, [key], [])
    landing.settle()
    settle(landing, by)
    assert asked(landing) == first


def test_an_order_without_a_quota_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"question_order names \['science'\], of which every question is asked"):
        recipe({"science": "longest_reference_first"}, math=2)
