//! From a resolved [`Variant`](crate::config::Variant) to a running simulation.
