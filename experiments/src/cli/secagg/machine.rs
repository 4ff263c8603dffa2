//! Threads that help, and the time that they take.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use fl_secagg::Workers;
use fl_secagg::rehearsal::Clock;

/// Some threads and their clock.
pub(super) struct Machine {
    threads: usize,
    start: Instant,
    /// Nanoseconds that helpers have run.
    helped: AtomicU64,
}

impl Machine {
    #[expect(
        clippy::disallowed_methods,
        reason = "what a benchmark measures is for people; nothing is decided by it"
    )]
    pub(super) fn new(threads: usize) -> Self {
        Self {
            threads,
            start: Instant::now(),
            helped: AtomicU64::new(0),
        }
    }
}

impl Clock for Machine {
    /// As Linux tells it; wall-clock time elsewhere.
    fn processor(&self) -> f64 {
        // The scheduler brings its account up to date when it is asked to run somebody else.
        std::thread::yield_now();
        std::fs::read_to_string("/proc/thread-self/schedstat")
            .ok()
            .and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok())
            .map_or_else(|| self.wall(), |nanoseconds| 1e-9 * nanoseconds)
    }

    fn with_helpers(&self) -> f64 {
        self.processor() + 1e-9 * self.helped.load(Ordering::SeqCst) as f64
    }

    fn wall(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }
}

impl Workers for Machine {
    fn each<T: Send, F: Fn(&mut T) + Sync + Send>(&self, jobs: &mut [T], work: F) {
        let helpers = self.threads.min(jobs.len()).saturating_sub(1);
        let queue = Mutex::new(jobs.iter_mut());
        let take = || queue.lock().map_or(None, |mut queue| queue.next());
        let help = || {
            while let Some(job) = take() {
                work(job);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..helpers {
                scope.spawn(|| {
                    let before = self.processor();
                    help();
                    let nanoseconds = 1e9 * (self.processor() - before);
                    self.helped.fetch_add(nanoseconds as u64, Ordering::SeqCst);
                });
            }
            help();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_job_is_done_once_and_its_time_counted() {
        for threads in [1, 2, 3] {
            let machine = Machine::new(threads);
            let mut jobs = vec![0u64; 100];
            let before = machine.with_helpers();
            machine.each(&mut jobs, |job| {
                *job += 1;
                let mut sum = 0u64;
                for i in 0..200_000 {
                    sum = std::hint::black_box(sum + i);
                }
            });
            assert!(jobs.iter().all(|&done| done == 1));
            assert!(machine.with_helpers() > before);
            assert_eq!(machine.helped.load(Ordering::SeqCst) > 0, threads > 1);
            machine.each(&mut [(); 0], |()| ());
        }
    }
}
