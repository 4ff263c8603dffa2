//! Ranges, and the place of a value that breaks one.

use std::fmt::Display;

use super::de::join;
use super::diagnostic::{Diagnostic, Diagnostics};
use super::node::Node;

/// Checks the values of one table.
pub(crate) struct Check<'a> {
    node: &'a Node,
    path: &'a str,
    errors: &'a Diagnostics,
}

impl<'a> Check<'a> {
    /// For the table `node` at the dotted `path`.
    pub(crate) fn new(node: &'a Node, path: &'a str, errors: &'a Diagnostics) -> Self {
        Self { node, path, errors }
    }

    /// Notes a fault of `key` (a dotted path inside the table; empty for the table itself).
    pub(crate) fn fault(&self, key: &str, message: impl Into<String>) {
        let mut node = self.node;
        for name in key.split('.').filter(|name| !name.is_empty()) {
            match node.at(name) {
                Some(inner) => node = inner,
                None => break,
            }
        }
        let path = match key {
            "" => self.path.to_owned(),
            key => join(self.path, key),
        };
        self.errors.add(Diagnostic::new(
            Some(node.place.clone()),
            path,
            message.into(),
        ));
    }

    /// Notes `key` unless `holds`.
    pub(crate) fn demand(&self, key: &str, holds: bool, found: &dyn Display, expected: &str) {
        if !holds {
            self.fault(key, format!("found {found}, expected {expected}"));
        }
    }

    /// Notes what a registry refused.
    pub(crate) fn refused(&self, error: &fl_core::registry::ConfigError) {
        self.fault(
            error.key,
            format!("found {}, expected {}", error.value, error.expected),
        );
    }

    pub(crate) fn above_zero(&self, key: &str, value: f64) {
        self.demand(key, value > 0.0, &value, "a number above 0");
        self.fits(key, value);
    }

    pub(crate) fn at_least_zero(&self, key: &str, value: f64) {
        self.demand(key, value >= 0.0, &value, "a number of at least 0");
        self.fits(key, value);
    }

    /// Training computes with 32 bits: what is not zero must not become zero or infinite there.
    fn fits(&self, key: &str, value: f64) {
        let single = value as f32;
        if value > 0.0 && !(single > 0.0 && single.is_finite()) {
            self.fault(
                key,
                format!("found {value:e}, expected a number that 32 bits hold, from 1e-38 to 3e38"),
            );
        }
    }

    pub(crate) fn share(&self, key: &str, value: f64) {
        self.demand(
            key,
            (0.0..=1.0).contains(&value),
            &value,
            "a share between 0 and 1",
        );
    }
}
