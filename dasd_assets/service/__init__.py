"""The service: decides what runs and when. No stage imports it."""
