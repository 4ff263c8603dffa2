//! The one place that looks at the wall clock: to report how long things took, never to decide.

use std::time::Instant;

use fl_core::VirtualTime;

/// The round machine's clock does not move: there is no device model yet.
pub(crate) const NOW: VirtualTime = VirtualTime(0);

/// Measures elapsed time for reports.
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts now.
    #[expect(
        clippy::disallowed_methods,
        reason = "durations are reported to people; no decision of the simulation sees them"
    )]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// Seconds since the start.
    pub(crate) fn seconds(&self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }
}
