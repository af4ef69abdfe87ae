"""The table behind Explore: one narrow row per response, in memory, so that a page of a million takes no second.

The warehouse has a response's domain, verdicts, scores and selection in tables of millions of rows; to join them for
each page would take seconds. They are joined once per snapshot, by DuckDB on all cores, beside the pages that are
asked for meanwhile: those show the snapshot before. A home that is written to all the time is read again only when as
much time has passed as REST readings take. Texts stay in the warehouse; those that a search finds are remembered.
"""

import time
from collections.abc import Mapping
from functools import lru_cache
from threading import Lock, Thread

import duckdb
import polars as pl

from dasd_assets.rules.asset_names import DAS
from dasd_assets.rules.checkpoints import undistilled_student
from dasd_assets.rules.filters.catalogue import CORRECTNESS, filter_version, required_filters
from dasd_assets.rules.scores import threshold_version
from dasd_assets.rules.verdict import DECIDED
from dasd_resources.recipe import Recipe
from dasd_resources.storage.lake import Lake

Params = Mapping[str, object]
REST = 10  # times what reading took
NUM_SEARCHES = 8  # remembered
TEACHER_SHARE = "teacher_share"
FOUND = "found"  # the table of what a search found

# Passed: every required verdict is there, as the pool wants it; NULL where one is missing and no other failed.
_VERDICTS = f"""SELECT response_id,
        bool_and(passed) FILTER (WHERE list_contains($filters, filter))
            AND nullif(count(*) FILTER (WHERE list_contains($filters, filter)) = len($filters), FALSE) AS passed,
        string_agg(filter, ' ' ORDER BY filter) FILTER (WHERE NOT passed) AS failed,
        bool_and(passed) FILTER (WHERE filter = '{CORRECTNESS}' AND {DECIDED}) AS correct,
        max(value) FILTER (WHERE filter = 'length')::INTEGER AS length
    FROM response_verdicts v WHERE filter_version = $filter_version GROUP BY response_id"""
_SCORES = f"""SELECT response_id,
        max(score) FILTER (WHERE score_name = $score) AS score,
        max(score) FILTER (WHERE score_name = '{TEACHER_SHARE}') AS teacher_share,
        max(num_sentences) AS num_sentences
    FROM response_scores WHERE student_fingerprint = $student AND threshold_version = $threshold_version
        AND score_name IN ($score, '{TEACHER_SHARE}') GROUP BY response_id"""
_SELECTED = f"""SELECT response_id, string_agg(dataset, ' ' ORDER BY dataset) AS chosen
    FROM selected_responses WHERE recipe = $recipe AND policy = '{DAS}' GROUP BY response_id"""
ROWS = f"""SELECT r.response_id, r.prompt_id, coalesce(p.domain, '(withdrawn)') AS domain, r.batch, r.temperature,
        r.sample_index, r.finish_reason, v.passed, v.failed, v.correct, v.length, s.score, s.teacher_share,
        s.num_sentences, c.chosen
    FROM (SELECT response_id, prompt_id, batch, temperature, sample_index, finish_reason FROM responses) r
        LEFT JOIN (SELECT prompt_id, domain FROM prompts) p USING (prompt_id)
        LEFT JOIN ({_VERDICTS}) v USING (response_id)
        LEFT JOIN ({_SCORES}) s USING (response_id)
        LEFT JOIN ({_SELECTED}) c USING (response_id)"""
_SEARCH = """SELECT response_id FROM responses WHERE contains(lower(text), lower($text))
    UNION SELECT response_id FROM responses WHERE prompt_id IN (
        SELECT prompt_id FROM prompts WHERE contains(lower(question), lower($text)))"""


class ExploreRows:
    """The table `rows` as of a snapshot, which `read` queries, with what a text search found as the table `found`."""

    def __init__(self, lake: Lake, recipe: Recipe) -> None:
        self._lake, self._recipe = lake, recipe
        self._memory = duckdb.connect(config={"autoinstall_known_extensions": False})
        self._reading, self._asking = Lock(), Lock()
        self._remembered = lru_cache(NUM_SEARCHES)(self._search)
        self._not_before = 0.0
        self.snapshot: int | None = None
        self.newest = 0

    def refresh(self) -> None:
        """See that `rows` is there: read it at first, later start reading beside if a newer snapshot is due."""
        if self.snapshot is None:
            with self._reading:
                if self.snapshot is None:
                    self._load()
            return
        self.newest = self._lake.snapshot_id()
        due = self.newest != self.snapshot and time.monotonic() >= self._not_before
        if due and self._reading.acquire(blocking=False):
            Thread(target=self._load_beside, name="explore-rows", daemon=True).start()

    def _load_beside(self) -> None:
        try:
            self._load()
        finally:
            self._reading.release()

    def _load(self) -> None:
        began = time.monotonic()
        params = self._params()
        with self._lake.reading() as reading:
            snapshot = reading.snapshot_id()
            with reading.all_cores():
                frame = reading.read(ROWS, params)
        with self._asking:
            self._memory.register("incoming", frame)
            self._memory.execute("CREATE OR REPLACE TABLE rows AS SELECT * FROM incoming ORDER BY response_id")
            self._memory.unregister("incoming")
            self.snapshot = self.newest = snapshot
        self._not_before = time.monotonic() + REST * (time.monotonic() - began)

    def _params(self) -> Params:
        recipe = self._recipe
        student = undistilled_student(self._lake, recipe) or ""
        return {
            "recipe": recipe.name,
            "student": student,
            "filters": list(required_filters(recipe.filters.require_correct, recipe.filters.required)),
            "filter_version": filter_version(recipe, student),
            "threshold_version": threshold_version(recipe),
            "score": recipe.selection.score,
        }

    def read(self, query: str, params: Params) -> pl.DataFrame:
        """Rows of a query on `rows`, and on `found` where that is among the parameters."""
        named = {name: value for name, value in params.items() if f"${name}" in query}
        with self._asking:
            if FOUND in params:
                self._memory.register(FOUND, params[FOUND])
            return pl.DataFrame(self._memory.sql(query, params=named))

    def search(self, text: str) -> pl.DataFrame:
        """The ids of responses whose text, or whose question, has `text` in it, whatever the case."""
        return self._remembered(self.snapshot, text)

    def _search(self, snapshot: int | None, text: str) -> pl.DataFrame:
        with self._lake.reading() as reading, reading.all_cores():
            return reading.read(_SEARCH, {"text": text})
