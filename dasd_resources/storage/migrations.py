"""How a catalog of an earlier release becomes one of this: forward steps, never edited once released, only appended.

A new catalog is not made from these but from `storage.tables`. A table, or a column that may be NULL, needs no step: it
is added where it is missing. A step is for the rest: another name, another type, a column that may not be NULL.
"""

_CODED_VERDICT = """CASE
        WHEN passed AND reason = 'no verifier' THEN 'no_verifier'
        WHEN passed THEN NULL
        WHEN reason LIKE 'the student cannot be asked: %' THEN 'unsupported_question'
        WHEN filter = 'length' THEN 'too_long'
        WHEN filter = 'truncation' THEN 'cut_off'
        WHEN reason LIKE 'calls a tool%' THEN 'tool_call'
        WHEN reason LIKE 'no thinking part%' THEN 'no_thinking'
        WHEN reason LIKE 'no final answer%' THEN 'no_final_answer'
        WHEN filter = 'structure' THEN 'extra_delimiters'
        WHEN reason LIKE 'duplicate %' THEN 'repeated_ngrams'
        WHEN reason LIKE 'repeated paragraphs %' THEN 'repeated_paragraphs'
        WHEN reason LIKE 'repeated sentences %' THEN 'repeated_sentences'
        WHEN reason LIKE 'repeated phrases %' THEN 'repeated_phrases'
        WHEN filter = 'repetition' THEN 'looping_tail'
        ELSE 'wrong_answer' END"""

MIGRATIONS = (
    """
    CREATE TABLE prompts(
        prompt_id VARCHAR NOT NULL, batch VARCHAR NOT NULL, domain VARCHAR NOT NULL, question VARCHAR NOT NULL,
        system_prompt VARCHAR, reference_answer VARCHAR, verifier VARCHAR, metadata VARCHAR,
        source_file VARCHAR NOT NULL, source_line BIGINT NOT NULL);
    CREATE TABLE rejected_prompts(
        batch VARCHAR NOT NULL, source_file VARCHAR NOT NULL, source_line BIGINT NOT NULL, reason VARCHAR NOT NULL);
    CREATE TABLE responses(
        response_id VARCHAR NOT NULL, prompt_id VARCHAR NOT NULL, batch VARCHAR NOT NULL, temperature DOUBLE NOT NULL,
        top_p DOUBLE NOT NULL, max_tokens INTEGER NOT NULL, sample_index INTEGER NOT NULL, seed BIGINT NOT NULL,
        teacher_fingerprint VARCHAR NOT NULL, template_version VARCHAR NOT NULL, engine VARCHAR NOT NULL,
        dtype VARCHAR NOT NULL, text VARCHAR NOT NULL, token_ids INTEGER[] NOT NULL, logprobs FLOAT[] NOT NULL,
        offsets INTEGER[] NOT NULL, tool_call BOOLEAN NOT NULL, finish_reason VARCHAR NOT NULL);
    ALTER TABLE responses SET PARTITIONED BY (batch);
    CREATE TABLE failed_requests(
        request_id VARCHAR NOT NULL, asset VARCHAR NOT NULL, batch VARCHAR, reason VARCHAR NOT NULL,
        failed_at TIMESTAMPTZ NOT NULL);
    CREATE TABLE response_verdicts(
        response_id VARCHAR NOT NULL, batch VARCHAR NOT NULL, filter VARCHAR NOT NULL, passed BOOLEAN NOT NULL,
        reason VARCHAR, filter_version VARCHAR NOT NULL);
    CREATE TABLE student_logprobs(
        response_id VARCHAR NOT NULL, batch VARCHAR NOT NULL, student_fingerprint VARCHAR NOT NULL,
        engine VARCHAR NOT NULL, dtype VARCHAR NOT NULL,
        token_ids INTEGER[] NOT NULL, logprobs FLOAT[] NOT NULL, offsets INTEGER[] NOT NULL);
    ALTER TABLE student_logprobs SET PARTITIONED BY (batch);
    CREATE TABLE sentence_probabilities(
        response_id VARCHAR NOT NULL, batch VARCHAR NOT NULL, student_fingerprint VARCHAR NOT NULL,
        sentence_index INTEGER NOT NULL, start INTEGER NOT NULL,
        stop INTEGER NOT NULL, teacher_sum_logprob DOUBLE NOT NULL, teacher_num_tokens INTEGER NOT NULL,
        student_sum_logprob DOUBLE NOT NULL, student_num_tokens INTEGER NOT NULL, teacher_prob DOUBLE,
        student_prob DOUBLE, segmenter_version VARCHAR NOT NULL);
    ALTER TABLE sentence_probabilities SET PARTITIONED BY (batch);
    CREATE TABLE sentence_types(
        response_id VARCHAR NOT NULL, batch VARCHAR NOT NULL, student_fingerprint VARCHAR NOT NULL,
        sentence_index INTEGER NOT NULL, sentence_type VARCHAR,
        threshold DOUBLE NOT NULL, threshold_version VARCHAR NOT NULL);
    CREATE TABLE response_scores(
        response_id VARCHAR NOT NULL, batch VARCHAR NOT NULL, student_fingerprint VARCHAR NOT NULL,
        score_name VARCHAR NOT NULL, score DOUBLE,
        num_sentences INTEGER NOT NULL, threshold_version VARCHAR NOT NULL);
    CREATE TABLE selected_responses(
        recipe VARCHAR NOT NULL, dataset VARCHAR NOT NULL, policy VARCHAR NOT NULL, response_id VARCHAR NOT NULL,
        prompt_id VARCHAR NOT NULL, domain VARCHAR NOT NULL, rank BIGINT NOT NULL, score DOUBLE,
        score_name VARCHAR NOT NULL, threshold DOUBLE NOT NULL, selection_version VARCHAR NOT NULL,
        dataset_id VARCHAR NOT NULL);
    CREATE TABLE sft_examples(
        recipe VARCHAR NOT NULL, dataset VARCHAR NOT NULL, policy VARCHAR NOT NULL, example_id VARCHAR NOT NULL,
        response_id VARCHAR, continuation_id VARCHAR, input_ids INTEGER[] NOT NULL, labels INTEGER[] NOT NULL,
        dataset_id VARCHAR NOT NULL);
    CREATE TABLE checkpoints(
        checkpoint_id VARCHAR NOT NULL, recipe VARCHAR, stage VARCHAR NOT NULL, parent_checkpoint_id VARCHAR,
        dataset VARCHAR, dataset_id VARCHAR, snapshot_id BIGINT, path VARCHAR NOT NULL, content_hash VARCHAR NOT NULL,
        training_version VARCHAR, num_examples BIGINT, num_steps BIGINT, seconds DOUBLE, final_loss DOUBLE,
        materialized_at TIMESTAMPTZ NOT NULL);
    CREATE TABLE student_rollouts(
        rollout_id VARCHAR NOT NULL, checkpoint_id VARCHAR NOT NULL, prompt_id VARCHAR NOT NULL,
        reference_response_id VARCHAR NOT NULL, reference_num_tokens INTEGER NOT NULL, max_tokens INTEGER NOT NULL,
        temperature DOUBLE NOT NULL, top_p DOUBLE NOT NULL, seed BIGINT NOT NULL, text VARCHAR NOT NULL,
        token_ids INTEGER[] NOT NULL, logprobs FLOAT[] NOT NULL, offsets INTEGER[] NOT NULL,
        finish_reason VARCHAR NOT NULL, cut_off BOOLEAN NOT NULL);
    CREATE TABLE prefix_cuts(
        rollout_id VARCHAR NOT NULL, cut_token INTEGER, cut_char INTEGER, seed BIGINT NOT NULL,
        reason VARCHAR, cut_version VARCHAR NOT NULL);
    CREATE TABLE teacher_continuations(
        continuation_id VARCHAR NOT NULL, rollout_id VARCHAR NOT NULL, prompt_id VARCHAR NOT NULL,
        prefix_text VARCHAR NOT NULL, continuation_text VARCHAR NOT NULL, text VARCHAR NOT NULL,
        temperature DOUBLE NOT NULL, max_tokens INTEGER NOT NULL, seed BIGINT NOT NULL,
        teacher_fingerprint VARCHAR NOT NULL, token_ids INTEGER[] NOT NULL, logprobs FLOAT[] NOT NULL,
        offsets INTEGER[] NOT NULL, tool_call BOOLEAN NOT NULL, finish_reason VARCHAR NOT NULL);
    CREATE TABLE continuation_verdicts(
        continuation_id VARCHAR NOT NULL, filter VARCHAR NOT NULL, passed BOOLEAN NOT NULL, reason VARCHAR,
        filter_version VARCHAR NOT NULL);
    CREATE TABLE benchmark_questions(
        benchmark VARCHAR NOT NULL, question_id VARCHAR NOT NULL, question VARCHAR NOT NULL,
        system_prompt VARCHAR, reference_answer VARCHAR, verifier VARCHAR, metadata VARCHAR,
        source_line BIGINT NOT NULL);
    CREATE TABLE evaluations(
        evaluation_id VARCHAR NOT NULL, checkpoint_id VARCHAR NOT NULL, benchmark VARCHAR NOT NULL,
        temperature DOUBLE NOT NULL, top_p DOUBLE NOT NULL, max_tokens INTEGER NOT NULL, question_id VARCHAR NOT NULL,
        sample_index INTEGER NOT NULL, correct BOOLEAN NOT NULL, reason VARCHAR, response_text VARCHAR NOT NULL,
        num_tokens INTEGER NOT NULL, finish_reason VARCHAR NOT NULL, verifier_version VARCHAR NOT NULL);
    """,
    # Who wrote each row; which prompts are withdrawn; which rule selected; what every checkpoint was trained on.
    """
    ALTER TABLE prompts ADD COLUMN run_id VARCHAR;
    ALTER TABLE rejected_prompts ADD COLUMN run_id VARCHAR;
    ALTER TABLE responses ADD COLUMN run_id VARCHAR;
    ALTER TABLE failed_requests ADD COLUMN run_id VARCHAR;
    ALTER TABLE response_verdicts ADD COLUMN run_id VARCHAR;
    ALTER TABLE student_logprobs ADD COLUMN run_id VARCHAR;
    ALTER TABLE sentence_probabilities ADD COLUMN run_id VARCHAR;
    ALTER TABLE sentence_types ADD COLUMN run_id VARCHAR;
    ALTER TABLE response_scores ADD COLUMN run_id VARCHAR;
    ALTER TABLE selected_responses ADD COLUMN run_id VARCHAR;
    ALTER TABLE sft_examples ADD COLUMN run_id VARCHAR;
    ALTER TABLE checkpoints ADD COLUMN run_id VARCHAR;
    ALTER TABLE student_rollouts ADD COLUMN run_id VARCHAR;
    ALTER TABLE prefix_cuts ADD COLUMN run_id VARCHAR;
    ALTER TABLE teacher_continuations ADD COLUMN run_id VARCHAR;
    ALTER TABLE continuation_verdicts ADD COLUMN run_id VARCHAR;
    ALTER TABLE benchmark_questions ADD COLUMN run_id VARCHAR;
    ALTER TABLE evaluations ADD COLUMN run_id VARCHAR;
    ALTER TABLE rejected_prompts ADD COLUMN prompt_id VARCHAR;
    CREATE TABLE withdrawn_prompts(
        prompt_id VARCHAR NOT NULL, question_hash VARCHAR NOT NULL, reason VARCHAR NOT NULL,
        withdrawn_at TIMESTAMPTZ NOT NULL, run_id VARCHAR);
    CREATE TABLE selection_rules(
        recipe VARCHAR NOT NULL, dataset VARCHAR NOT NULL, rule VARCHAR NOT NULL, selected_at TIMESTAMPTZ NOT NULL,
        run_id VARCHAR);
    CREATE TABLE checkpoint_examples(
        checkpoint_id VARCHAR NOT NULL, example_id VARCHAR NOT NULL, prompt_id VARCHAR NOT NULL,
        response_id VARCHAR, continuation_id VARCHAR, run_id VARCHAR);
    ALTER TABLE checkpoints ADD COLUMN recipe_document VARCHAR;
    ALTER TABLE checkpoints ADD COLUMN environment VARCHAR;
    CREATE VIEW lineage_examples AS
        SELECT e.recipe, e.dataset, e.policy, e.example_id, e.response_id, e.continuation_id, c.rollout_id,
            coalesce(r.prompt_id, c.prompt_id) AS prompt_id, p.batch, p.source_file, p.source_line, e.run_id
        FROM sft_examples e LEFT JOIN responses r ON r.response_id = e.response_id
            LEFT JOIN teacher_continuations c ON c.continuation_id = e.continuation_id
            LEFT JOIN prompts p ON p.prompt_id = coalesce(r.prompt_id, c.prompt_id);
    CREATE VIEW lineage_checkpoints AS
        WITH RECURSIVE chain AS (
            SELECT checkpoint_id, recipe, stage, checkpoint_id AS ancestor_id, 0 AS distance, parent_checkpoint_id
            FROM checkpoints
            UNION SELECT c.checkpoint_id, c.recipe, c.stage, p.checkpoint_id, c.distance + 1, p.parent_checkpoint_id
            FROM chain c JOIN checkpoints p ON p.checkpoint_id = c.parent_checkpoint_id)
        SELECT DISTINCT c.checkpoint_id, c.recipe, c.stage, c.distance, c.ancestor_id, a.stage AS ancestor_stage,
            a.dataset, a.dataset_id, a.snapshot_id, a.run_id
        FROM chain c JOIN checkpoints a ON a.checkpoint_id = c.ancestor_id AND a.recipe = c.recipe;
    CREATE VIEW lineage_runs AS
        SELECT 'prompts' AS table_name, prompt_id AS row_id, run_id FROM prompts
        UNION ALL SELECT 'responses' AS table_name, response_id AS row_id, run_id FROM responses
        UNION ALL SELECT 'student_logprobs' AS table_name, response_id AS row_id, run_id FROM student_logprobs
        UNION ALL SELECT 'selected_responses' AS table_name, response_id AS row_id, run_id FROM selected_responses
        UNION ALL SELECT 'sft_examples' AS table_name, example_id AS row_id, run_id FROM sft_examples
        UNION ALL SELECT 'checkpoints' AS table_name, checkpoint_id AS row_id, run_id FROM checkpoints
        UNION ALL SELECT 'student_rollouts' AS table_name, rollout_id AS row_id, run_id FROM student_rollouts
        UNION ALL SELECT 'prefix_cuts' AS table_name, rollout_id AS row_id, run_id FROM prefix_cuts
        UNION ALL
        SELECT 'teacher_continuations' AS table_name, continuation_id AS row_id, run_id FROM teacher_continuations
        UNION ALL SELECT 'evaluations' AS table_name, evaluation_id AS row_id, run_id FROM evaluations;
    """,
    """
    ALTER TABLE failed_requests ADD COLUMN num_attempts INTEGER;
    CREATE TABLE quarantined_batches(
        batch VARCHAR NOT NULL, reason VARCHAR NOT NULL, step VARCHAR NOT NULL, num_attempts INTEGER NOT NULL,
        failed_run_id VARCHAR NOT NULL, quarantined_at TIMESTAMPTZ NOT NULL, released_at TIMESTAMPTZ, run_id VARCHAR);
    """,
    # What an id is the hash of, where the row did not hold it: `dasd audit verify` recomputes it.
    """
    ALTER TABLE teacher_continuations ADD COLUMN top_p DOUBLE;
    ALTER TABLE teacher_continuations ADD COLUMN max_response_tokens INTEGER;
    ALTER TABLE evaluations ADD COLUMN template_version VARCHAR;
    """,
    # Which snapshot holds a dataset's rows: maintenance keeps it.
    """
    CREATE TABLE published_datasets(
        recipe VARCHAR NOT NULL, dataset VARCHAR NOT NULL, policy VARCHAR NOT NULL, dataset_id VARCHAR NOT NULL,
        snapshot_id BIGINT NOT NULL, num_examples BIGINT NOT NULL, published_at TIMESTAMPTZ NOT NULL, run_id VARCHAR);
    """,
    # A selection's id is another hash than that of the SFT dataset made of it.
    "ALTER TABLE selected_responses RENAME COLUMN dataset_id TO selection_id",
    # Codes beside the sentences for people. What was written before is coded here, once, from its sentence, as the
    # releases up to this step worded it. Which prompt a rejected line repeats, and of which batch, it alone said.
    """
    ALTER TABLE rejected_prompts ADD COLUMN kind VARCHAR;
    ALTER TABLE rejected_prompts ADD COLUMN owner_batch VARCHAR;
    ALTER TABLE failed_requests ADD COLUMN kind VARCHAR;
    ALTER TABLE response_verdicts ADD COLUMN kind VARCHAR;
    ALTER TABLE continuation_verdicts ADD COLUMN kind VARCHAR;
    ALTER TABLE evaluations ADD COLUMN kind VARCHAR;
    UPDATE rejected_prompts SET
        prompt_id = coalesce(prompt_id, nullif(regexp_extract(reason, '^duplicate of prompt ([0-9a-f]{32})', 1), '')),
        owner_batch = nullif(regexp_extract(reason, '^duplicate of prompt [0-9a-f]{32} in batch (.+)$', 1), ''),
        kind = CASE
            WHEN reason LIKE 'withdrawn: %' THEN 'withdrawn'
            WHEN reason = 'no more withdrawn, but this file is gone' THEN 'withdrawn_file_gone'
            WHEN reason = 'duplicate of a prompt whose batch is gone, as is this file' THEN 'duplicate_file_gone'
            WHEN regexp_matches(reason, '^duplicate of prompt [0-9a-f]{32} in batch ') THEN 'duplicate'
            WHEN reason LIKE 'duplicate of prompt %' THEN 'duplicate_line'
            WHEN reason = 'file is empty' THEN 'empty_file'
            WHEN reason LIKE 'file is damaged %' THEN 'damaged_file'
            WHEN regexp_matches(reason, '^row has [0-9]+ bytes') THEN 'row_too_long'
            WHEN reason LIKE 'not UTF-8 at byte %' THEN 'invalid_encoding'
            WHEN reason LIKE 'question is missing%' THEN 'missing_question'
            WHEN reason LIKE 'unknown verifier %' THEN 'unknown_verifier'
            WHEN regexp_matches(reason, '^verifier .* needs a reference_answer$') THEN 'missing_reference'
            WHEN regexp_matches(reason, '^reference_answer (has [0-9]+ characters|.* fails its own verifier )')
            THEN 'invalid_reference'
            WHEN regexp_matches(reason, '^[a-z_]+ (must be|is empty: |holds a )')
                OR reason LIKE 'keys both in the row and in its metadata%' THEN 'invalid_field'
            ELSE 'invalid_json' END;
    UPDATE failed_requests SET kind = CASE
        WHEN regexp_matches(reason, '^http[^ ]+ answered HTTP 429: ') THEN 'server_busy'
        WHEN regexp_matches(reason, '^http[^ ]+ (cannot be reached: |is busy, and says )|^no server was to be had for ')
            OR regexp_matches(reason, '^http[^ ]+ answered HTTP (401|403|404|3[0-9][0-9]): ') THEN 'server_unavailable'
        WHEN regexp_matches(reason, '^http[^ ]+ answered HTTP 4(0[^8]|[^0][0-9]): ') THEN 'server_refused'
        WHEN regexp_matches(reason, '^http[^ ]+ (answered HTTP |gave no whole answer |broke off )|^http[^ ]+: ')
        THEN 'server_error'
        WHEN reason LIKE 'the model''s chat template refuses the question%' THEN 'unsupported_question'
        WHEN regexp_matches(reason, 'exceeds? the model''s context of ') THEN 'context_overflow'
        WHEN reason LIKE '%leave the model''s vocabulary of %' THEN 'unknown_token'
        WHEN reason LIKE 'the prefix alone fills generation.max_tokens %' THEN 'no_budget'
        WHEN regexp_matches(reason, ': logprob .* is not a log-probability|: [0-9]+ tokens but [0-9]+ logprobs')
        THEN 'invalid_logprobs'
        WHEN reason = 'the engine ended without a result for it' THEN 'no_result'
        ELSE 'engine_error' END;
    """
    f"""
    UPDATE response_verdicts SET kind = {_CODED_VERDICT} WHERE reason IS NOT NULL;
    UPDATE continuation_verdicts SET kind = {_CODED_VERDICT} WHERE reason IS NOT NULL;
    UPDATE evaluations SET kind = CASE reason WHEN 'no final answer' THEN 'no_final_answer' ELSE 'wrong_answer' END
    WHERE NOT correct AND reason IS NOT NULL;
    """,
    # The student's tokens have a table of their own, `student_tokens`, with the prompt's: made anew, not moved.
    """
    ALTER TABLE student_logprobs DROP COLUMN token_ids;
    ALTER TABLE student_logprobs DROP COLUMN offsets;
    """,
    # A checkpoint is named for what it was trained on; which stage of training that was is a number.
    """
    ALTER TABLE checkpoints RENAME COLUMN stage TO name;
    ALTER TABLE checkpoints ADD COLUMN stage INTEGER;
    UPDATE checkpoints SET
        stage = CASE WHEN name = 'student' THEN 0
            ELSE TRY_CAST(regexp_extract(name, '^stage([0-9]+)$', 1) AS INTEGER) END,
        name = coalesce(dataset, name);
    """,
    # A home may be moved or copied: what was trained in it is named by its place there, not by where the home was.
    """
    UPDATE checkpoints SET path = 'checkpoints/' || checkpoint_id
    WHERE dataset IS NOT NULL AND ends_with(path, '/checkpoints/' || checkpoint_id);
    """,
)
