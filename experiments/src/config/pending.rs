//! Types of crates that are being written at this moment; goes away when they land.
#![expect(missing_docs, reason = "goes away within the hour")]
use serde::{Deserialize, Serialize};
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetConfig {
    pub name: String,
    #[serde(default)]
    pub path: Option<std::path::PathBuf>,
    #[serde(default)]
    pub limit: Option<u64>,
}
pub struct FleetConfig {
    pub stragglers: f64,
    pub dropout: f64,
}
pub struct EvaluationConfig {
    pub every: u64,
    pub initial: bool,
    pub train: bool,
    pub per_client: PerClient,
    pub max_clients: u64,
}
pub enum PerClient {
    Never,
    Last,
    Each,
}
impl Default for EvaluationConfig {
    fn default() -> Self {
        Self {
            every: 1,
            initial: true,
            train: false,
            per_client: PerClient::Last,
            max_clients: 10000,
        }
    }
}
