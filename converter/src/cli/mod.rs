//! The command-line programs: one file a subcommand.
