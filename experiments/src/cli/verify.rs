//! Subcommand `verify`.
