"""Rules: what decides a row's id, content or place. Plain values in and out; nothing here imports Dagster.

Stages apply them and audits apply them again, so that neither repeats the other.
"""
