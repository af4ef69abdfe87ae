"""Landing: the folder that prompt files arrive in, and the prompts and rejected lines in them."""
