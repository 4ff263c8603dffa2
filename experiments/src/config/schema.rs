//! The JSON schema of an experiment.
