//! Subcommand `compare`.
