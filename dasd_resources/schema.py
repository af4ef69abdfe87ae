"""The warehouse's tables, as forward migrations: append a step, never edit one that has shipped.

`batch` stands in every per-batch table so that a reader touches only its own files. Token lists are one row per
response: natural-log float32 probabilities, code-point offsets into the canonical text (-1: not in it).
"""

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
)
