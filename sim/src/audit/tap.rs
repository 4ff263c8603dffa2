//! Where an audit listens: between the ring's sum and what the strategy is given.

use fl_core::{ClientId, RoundId};
use fl_privacy::clip::{Clipped, Clipper, changes};
use fl_privacy::plan::ClipCount;
use fl_privacy::{DpPlan, NeighboringRelation, PrivacyError};

use super::attack::Attack;
use super::recorder::{Call, Mechanism, Recorder, Step};
use crate::executor::Job;

/// Something that a run does wrong while its plan believes otherwise. There is no way to set one
/// outside an audit, whose models are thrown away.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Fault {
    /// The noise that is released is this multiple of the noise that was drawn.
    NoiseScale(f64),
    /// What leaves the clipper is this multiple of what should.
    ClipScale(f64),
    /// The sum is divided by the number of those who took part.
    RealisedDenominator,
    /// A round without participants releases zeros, without noise.
    QuietWhenEmpty,
}

/// Listens to the releases of a run.
#[derive(Debug)]
pub(crate) struct Tap {
    fault: Option<Fault>,
    log: Log,
    pending: Pending,
}

/// What is done with what is heard.
#[derive(Debug)]
pub(super) enum Log {
    /// Canaries are scored.
    Canaries(Box<Attack>),
    /// Calls are written down.
    Record(Recorder),
}

/// What was declared before noise was drawn.
#[derive(Debug, Default)]
struct Pending {
    sum: Vec<f64>,
    sensitivity: f64,
    noise_std: f64,
    half_bits: i64,
}

/// A clipper that lets too much through.
#[derive(Debug)]
pub(crate) struct LooseClip<'a> {
    clipper: &'a dyn Clipper,
    factor: f32,
}

impl Clipper for LooseClip<'_> {
    fn clip(&self, update: &mut [f32]) -> Clipped {
        let clipped = self.clipper.clip(update);
        for value in update {
            *value *= self.factor;
        }
        clipped
    }

    fn max_norm(&self) -> f64 {
        self.clipper.max_norm()
    }

    fn sensitivity(&self, relation: NeighboringRelation) -> f64 {
        self.clipper.sensitivity(relation)
    }
}

impl Tap {
    pub(super) fn new(fault: Option<Fault>, log: Log) -> Self {
        Self {
            fault,
            log,
            pending: Pending::default(),
        }
    }

    /// The clipper that is used in place of `planned`, where that is the fault.
    pub(crate) fn loosened<'a>(&self, planned: Option<&'a dyn Clipper>) -> Option<LooseClip<'a>> {
        match (self.fault, planned) {
            (Some(Fault::ClipScale(factor)), Some(clipper)) => Some(LooseClip {
                clipper,
                factor: factor as f32,
            }),
            _ => None,
        }
    }

    /// Before noise is added to `sum`.
    pub(crate) fn before(
        &mut self,
        plan: &DpPlan,
        sum: &[f64],
        clips: ClipCount,
    ) -> Result<(), PrivacyError> {
        self.pending = Pending {
            sum: sum.to_vec(),
            sensitivity: plan.sensitivity()?,
            noise_std: plan.noise_std()?,
            half_bits: clips.half_bits(),
        };
        if let Log::Canaries(attack) = &mut self.log {
            attack.meet(plan.clipper(), sum.len());
        }
        Ok(())
    }

    /// When `mean` is about to be released. The state that the plan is to go on from, where it is
    /// not its own.
    pub(crate) fn after(
        &mut self,
        round: RoundId,
        plan: &DpPlan,
        cohort: &[ClientId],
        jobs: &[Job],
        mean: &mut [f64],
    ) -> Option<String> {
        let pending = core::mem::take(&mut self.pending);
        let mut denominator = plan.mean().denominator();
        let mut silent = false;
        match self.fault {
            Some(Fault::NoiseScale(scale)) => {
                for (mean, sum) in mean.iter_mut().zip(&pending.sum) {
                    let noise = *mean * denominator - sum;
                    *mean = (sum + scale * noise) / denominator;
                }
            }
            Some(Fault::RealisedDenominator) => {
                let realised = (jobs.len() as f64).max(1.0);
                mean.iter_mut()
                    .for_each(|mean| *mean *= denominator / realised);
                denominator = realised;
            }
            Some(Fault::QuietWhenEmpty) if jobs.is_empty() => {
                mean.fill(0.0);
                silent = true;
            }
            Some(Fault::QuietWhenEmpty | Fault::ClipScale(_)) | None => {}
        }
        match &mut self.log {
            Log::Canaries(attack) => {
                let took_part = |client| {
                    jobs.binary_search_by_key(&client, |job: &Job| job.client)
                        .is_ok()
                };
                let invited = |client| cohort.binary_search(&client).is_ok();
                // What the attacker computes with is what was declared.
                attack.hear(
                    mean,
                    plan.mean().denominator(),
                    pending.noise_std,
                    &pending.sum,
                    invited,
                    took_part,
                );
                None
            }
            Log::Record(recorder) => {
                let mut calls = Vec::new();
                if !silent {
                    calls.push(Call {
                        round: round.0,
                        mechanism: Mechanism::Sum,
                        sensitivity: pending.sensitivity,
                        noise_std: pending.noise_std,
                        denominator,
                        input: pending.sum,
                    });
                }
                if let Some(noise_std) = plan.count_noise_std() {
                    calls.push(Call {
                        round: round.0,
                        mechanism: Mechanism::Count,
                        sensitivity: 0.5 * changes(plan.config().relation),
                        noise_std,
                        denominator: 1.0,
                        input: vec![0.5 * pending.half_bits as f64],
                    });
                }
                recorder.hear(Step {
                    cohort: cohort.to_vec(),
                    calls,
                    mean: mean.to_vec(),
                    state: plan.save(),
                });
                recorder.replay(round, mean)
            }
        }
    }

    pub(super) fn attack(self) -> Option<Box<Attack>> {
        match self.log {
            Log::Canaries(attack) => Some(attack),
            Log::Record(_) => None,
        }
    }

    pub(super) fn recorder(self) -> Option<Recorder> {
        match self.log {
            Log::Record(recorder) => Some(recorder),
            Log::Canaries(_) => None,
        }
    }
}
