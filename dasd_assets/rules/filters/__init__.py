"""Quality filters (report §6.2): `responses` -> `response_verdicts`; `catalogue` has them all."""
