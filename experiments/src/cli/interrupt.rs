//! Ctrl-C: the first asks the run to stop at a point from which it can be resumed, the second
//! ends the program at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Exit, output};

/// Catches Ctrl-C (and SIGTERM) from here on; returns the flag that the first one raises.
pub(crate) fn catch() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    let handler = move || {
        if flag.swap(true, Ordering::SeqCst) {
            std::process::exit(i32::from(Exit::Interrupted.code()));
        }
        output::tell("\nstopping after a checkpoint; press Ctrl-C again to quit at once");
    };
    if let Err(error) = ctrlc::set_handler(handler) {
        output::tell(&format!(
            "Ctrl-C cannot be caught ({error}); a run that is killed resumes from its last checkpoint"
        ));
    }
    stop
}
