//! Conformance suites for strategies, selectors, aggregators and trainers.
