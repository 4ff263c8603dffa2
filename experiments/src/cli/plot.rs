//! Subcommand `plot`.
