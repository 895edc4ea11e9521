//! The command-line programs: one file a subcommand.

pub mod boards;
