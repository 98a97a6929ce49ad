"""Teachers write completions. `protocol` says what one is; each other module is one kind of teacher."""
