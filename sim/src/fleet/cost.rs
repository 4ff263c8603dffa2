//! What training the real graph takes on each class of a mix: seconds, joules, memory.
//!
//! The times are those of [`fl_edge::device::estimate`] for a [training step](Work::training), and so
//! all of them are modelled. They are computed once for each class, with its NPU and without, at batch 1
//! and at the plan's batch; a smaller batch, such as the last of a pass, lies on the line between
//! them. A delegate that the model finds slower than the CPU is left out. On phones one thread
//! works: a program in the background has little more, and read so FLASH's measured training times
//! come out best (`docs/devices.md`). Clipping, noise, momentum and quantization-aware training cost no
//! time here beyond plain SGD's; the memory that they take is counted.
//!
//! A session is one client's training in a round: the device's speed, the
//! [spread](fl_edge::device::profile::Jitter) of its steps, and [heat](Heat), which carries over from
//! the last one.

use fl_core::{
    BatchSize, LocalPlan, LocalWork, Optimizer, Precision as Arithmetic, Stream, VirtualDuration,
    WorkLimit,
};
use fl_edge::Model;
use fl_edge::device::profile::DeviceProfile;
use fl_edge::device::{Choice, DelegateKind, Heat, Precision, Request, Work, estimate};

use serde::{Deserialize, Serialize};

use super::device::{Device, Fleet, lost};
use super::error::FleetError;

/// How many times longer training takes than serving in FedScale's recordings of capacity, which are
/// of serving (`client_metadata.py`: "backward-pass takes around 2x the latency").
const TRAINING_OVER_SERVING: f64 = 3.0;
/// Parts of a session whose ends are kept; epochs or steps between them lie on a line.
const MOST_PARTS: u32 = 64;
/// Largest batch at which costs are computed; larger ones lie on the line beyond.
const LARGEST_BATCH: u64 = 1 << 16;

/// Virtual time of so many seconds, to the nearest microsecond; none for less than nothing.
#[must_use]
pub fn duration(seconds: f64) -> VirtualDuration {
    // A cast saturates.
    VirtualDuration(libm::rint(seconds * 1e6) as u64)
}

/// A device that cannot hold the training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "training needs {needs} bytes and the device gives one program {has}; choose a smaller model or \
     batch, or a device with more memory"
)]
pub struct Unfit {
    /// Bytes that the training holds.
    pub needs: u64,
    /// Bytes that there are.
    pub has: u64,
}

/// Joules of a session by who took them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Joules {
    /// The CPU, beyond the idle device.
    pub cpu: f64,
    /// The GPU, beyond the idle device.
    pub gpu: f64,
    /// The NPU, beyond the idle device.
    pub npu: f64,
    /// The device while it did nothing else.
    pub idle: f64,
}

impl Joules {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.cpu + self.gpu + self.npu + self.idle
    }

    fn of(&mut self, delegate: DelegateKind) -> &mut f64 {
        match delegate {
            DelegateKind::Cpu => &mut self.cpu,
            DelegateKind::Gpu => &mut self.gpu,
            DelegateKind::Npu => &mut self.npu,
        }
    }

    fn add(&mut self, other: &Self, factor: f64) {
        self.cpu += factor * other.cpu;
        self.gpu += factor * other.gpu;
        self.npu += factor * other.npu;
        self.idle += factor * other.idle;
    }

    fn between(&self, other: &Self, part: f64) -> Self {
        let line = |from: f64, to: f64| from + part * (to - from);
        Self {
            cpu: line(self.cpu, other.cpu),
            gpu: line(self.gpu, other.gpu),
            npu: line(self.npu, other.npu),
            idle: line(self.idle, other.idle),
        }
    }
}

/// The cost of some steps on a cool device of median speed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepCost {
    /// Seconds.
    pub seconds: f64,
    /// Joules beyond the idle device.
    pub joules: Joules,
}

impl StepCost {
    fn add(&mut self, other: &Self, times: u64) {
        self.seconds += times as f64 * other.seconds;
        self.joules.add(&other.joules, times as f64);
    }

    fn watts(&self) -> f64 {
        match self.seconds > 0.0 {
            true => self.joules.total() / self.seconds,
            false => 0.0,
        }
    }
}

/// How a class trains, with its NPU or without.
#[derive(Clone, Debug, PartialEq)]
pub struct Way {
    /// How the graph is run at the plan's batch.
    pub choice: Choice,
    /// Seconds once, before the first step.
    pub start_up: f64,
    /// Costs of a step by its batch, ascending.
    points: Vec<(u64, StepCost)>,
}

impl Way {
    /// The cost of a step of `batch` examples.
    #[must_use]
    pub fn step(&self, batch: u64) -> StepCost {
        let above = self.points.partition_point(|&(known, _)| known < batch);
        if let Some((known, cost)) = self.points.get(above)
            && (*known == batch || above == 0)
        {
            return *cost;
        }
        let last = above.min(self.points.len().saturating_sub(1));
        let (Some(&(high, to)), Some(&(low, from))) = (
            self.points.get(last),
            self.points
                .get(last.wrapping_sub(1))
                .or(self.points.first()),
        ) else {
            return StepCost::default();
        };
        if high == low {
            return to;
        }
        let part = (batch as f64 - low as f64) / (high as f64 - low as f64);
        StepCost {
            seconds: from.seconds + part * (to.seconds - from.seconds),
            joules: from.joules.between(&to.joules, part),
        }
    }
}

#[derive(Clone, Debug)]
struct MemberCosts {
    profile: DeviceProfile,
    has: u64,
    /// Without the NPU, and with it.
    ways: [Way; 2],
}

/// What a plan for a model costs on every class of a mix.
#[derive(Clone, Debug)]
pub struct Costs {
    plan: LocalPlan,
    needs: u64,
    members: Vec<MemberCosts>,
}

/// One client's training in a round, as a device goes through it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// Seconds, start-up included.
    pub seconds: f64,
    /// Joules, by who took them.
    pub joules: Joules,
    /// The temperature afterwards.
    pub after: Heat,
    /// Seconds that it would take if heat slowed nothing down.
    pub cool_seconds: f64,
    /// Seconds of start-up.
    start_up: f64,
    /// Epochs or steps done, and the second at which they are.
    marks: Vec<(u32, f64)>,
    /// How things stood at the session's beginning, after the start-up, and at each mark.
    stations: Vec<Station>,
}

/// How a session stood at some second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Station {
    seconds: f64,
    cool_seconds: f64,
    joules: Joules,
    heat: Heat,
}

impl Session {
    /// One of no work.
    #[must_use]
    pub fn idle(heat: Heat) -> Self {
        let mut session = Self {
            seconds: 0.0,
            joules: Joules::default(),
            after: heat,
            cool_seconds: 0.0,
            start_up: 0.0,
            marks: Vec::new(),
            stations: Vec::new(),
        };
        session.stations.push(session.station());
        session
    }

    /// Epochs or steps, whichever the plan counts, that are done so many seconds after the session
    /// began.
    #[must_use]
    pub fn done_by(&self, seconds: f64) -> u32 {
        let past = self.marks.partition_point(|&(_, end)| end <= seconds);
        let before = past.checked_sub(1).and_then(|index| self.marks.get(index));
        let (done, from) = before.copied().unwrap_or((0, self.start_up));
        match self.marks.get(past) {
            Some(&(all, end)) if seconds > from => {
                let part = (seconds - from) / (end - from);
                // Below the next mark, whatever the rounding.
                let more = libm::floor(part * f64::from(all - done)) as u32;
                done + more.min(all - done - 1)
            }
            _ => done,
        }
    }

    /// The second at which so many epochs or steps are done; none when there are fewer.
    #[must_use]
    pub fn end_of(&self, amount: u32) -> Option<f64> {
        let index = self.marks.partition_point(|&(done, _)| done < amount);
        let &(all, end) = self.marks.get(index)?;
        let before = index.checked_sub(1).and_then(|index| self.marks.get(index));
        let (done, from) = before.copied().unwrap_or((0, self.start_up));
        let part = f64::from(amount - done) / f64::from(all - done);
        Some(from + part * (end - from))
    }

    /// The session if it is ended after so many seconds; between two marks energy and temperature lie
    /// on a line.
    #[must_use]
    pub fn until(&self, seconds: f64) -> Self {
        let mut ended = self.clone();
        let after = self.stations.partition_point(|at| at.seconds <= seconds);
        let Some(next) = self.stations.get(after) else {
            return ended;
        };
        let first = self.stations.first().unwrap_or(next);
        let last = after
            .checked_sub(1)
            .and_then(|index| self.stations.get(index));
        let last = last.unwrap_or(first);
        let span = next.seconds - last.seconds;
        let part = match span > 0.0 {
            true => ((seconds - last.seconds) / span).clamp(0.0, 1.0),
            false => 0.0,
        };
        let line = |from: f64, to: f64| from + part * (to - from);
        ended.seconds = line(last.seconds, next.seconds);
        ended.cool_seconds = line(last.cool_seconds, next.cool_seconds);
        ended.joules = last.joules.between(&next.joules, part);
        ended.after.celsius = line(last.heat.celsius, next.heat.celsius);
        ended.marks.retain(|&(_, end)| end <= seconds);
        ended.stations.truncate(after);
        ended.stations.push(ended.station());
        ended
    }

    /// Whether heat slows it down by more than a thousandth.
    #[must_use]
    pub fn is_throttled(&self) -> bool {
        self.seconds > 1.001 * self.cool_seconds
    }

    fn station(&self) -> Station {
        Station {
            seconds: self.seconds,
            cool_seconds: self.cool_seconds,
            joules: self.joules,
            heat: self.after,
        }
    }
}

/// Bytes that a session of the plan holds at a batch: the runtime's [own plan](Model::peak_bytes), the
/// gradient and the optimizer's state where they are kept, and the global model, which the update is
/// taken from.
fn memory(model: &Model, plan: &LocalPlan, batch: usize) -> u64 {
    let vector = 4 * model.parameters();
    let clips = plan.max_gradient_norm.is_some() || plan.proximal_mu > 0.0;
    let state = match plan.optimizer {
        Optimizer::Sgd { momentum, .. } if momentum > 0.0 => 2,
        Optimizer::Sgd { .. } => usize::from(clips),
        Optimizer::Adam { .. } => 3,
    };
    let session = match (plan.privacy, plan.precision) {
        (Some(_), _) => model.peak_bytes_per_example(batch),
        (None, Arithmetic::QatInt8) => {
            let plain = model.peak_bytes(batch, true);
            model.qat_peak_bytes(batch).unwrap_or(plain)
        }
        (None, _) => model.peak_bytes(batch, true),
    };
    (session + state * vector + vector) as u64
}

impl Costs {
    /// The costs of a plan for a model on the classes of a fleet, of which no client has more than
    /// `most_examples` examples.
    ///
    /// # Errors
    /// [`FleetError::Estimate`] for a class without rates in 32-bit floats.
    pub fn new(
        fleet: &Fleet,
        model: &Model,
        plan: &LocalPlan,
        most_examples: u64,
    ) -> Result<Self, FleetError> {
        let batch = plan.batch.examples(most_examples).min(LARGEST_BATCH);
        let mut batches = vec![1];
        if let BatchSize::Examples(_) = plan.batch {
            batches.push(batch);
        } else {
            // Batches differ from client to client.
            let doubled = (1..=16).map(|power| 1 << power);
            batches.extend(doubled.take_while(|&size| size < batch));
            batches.push(batch);
        }
        batches.dedup();
        let work = Work::training(model.graph());
        let mix = fleet.mix();
        let way = |profile: &DeviceProfile, npu: bool| -> Result<Way, FleetError> {
            let mut points = Vec::new();
            let (mut choice, mut start_up) = (Choice::Whole(DelegateKind::Cpu), 0.0);
            for &batch in &batches {
                let request = Request {
                    precision: Precision::F32,
                    batch: u32::try_from(batch).unwrap_or(u32::MAX),
                    threads: mix.threads,
                    lost: lost(npu),
                    avoid_slower: true,
                    ..Request::default()
                };
                let found = estimate(profile, &work, &request)?;
                (choice, start_up) = (found.choice, found.start_up_seconds);
                let mut joules = Joules::default();
                for op in &found.ops {
                    *joules.of(op.delegate) += op.joules;
                }
                // What crosses borders is the CPU's.
                joules.cpu += (found.joules - joules.total()).max(0.0);
                let seconds = found.seconds;
                points.push((batch, StepCost { seconds, joules }));
            }
            Ok(Way {
                choice,
                start_up,
                points,
            })
        };
        let members = mix
            .members
            .iter()
            .map(|member| {
                let profile = &member.profile;
                Ok(MemberCosts {
                    has: profile.memory.usable_bytes(),
                    ways: [way(profile, false)?, way(profile, true)?],
                    profile: profile.clone(),
                })
            })
            .collect::<Result<_, FleetError>>()?;
        Ok(Self {
            plan: *plan,
            needs: memory(model, plan, usize::try_from(batch).unwrap_or(usize::MAX)),
            members,
        })
    }

    /// Bytes that the training holds.
    #[must_use]
    pub fn needs(&self) -> u64 {
        self.needs
    }

    /// Whether a class can hold the training.
    ///
    /// # Errors
    /// [`Unfit`] with what it needs and what there is.
    pub fn fits(&self, member: usize) -> Result<(), Unfit> {
        let has = self.members.get(member).map_or(0, |member| member.has);
        match self.needs <= has {
            true => Ok(()),
            false => Err(Unfit {
                needs: self.needs,
                has,
            }),
        }
    }

    /// How a device trains, which must be one of the fleet that the costs are for.
    #[must_use]
    pub fn way(&self, device: &Device) -> &Way {
        &self.members[device.member].ways[usize::from(device.npu)]
    }

    /// The training of a client with so many examples on its device, which is at `heat` when it
    /// begins. `stream` is the client's at `DeviceSession`.
    ///
    /// # Errors
    /// [`Unfit`] when the device cannot hold it.
    pub fn session(
        &self,
        device: &Device,
        heat: Heat,
        examples: u64,
        limit: WorkLimit,
        stream: &mut Stream,
    ) -> Result<Session, Unfit> {
        self.fits(device.member)?;
        let (way, profile) = (self.way(device), &self.members[device.member].profile);
        let steps = self.plan.steps(examples, limit);
        let mut session = Session::idle(heat);
        if examples == 0 || steps == 0 {
            return Ok(session);
        }
        let one = WorkLimit::AtMost(core::num::NonZeroU32::MIN);
        let (units, unit_steps) = match self.plan.work {
            LocalWork::Epochs(_) => {
                let pass = self.plan.steps(examples, one).max(1);
                (u32::try_from(steps / pass).unwrap_or(u32::MAX), pass)
            }
            LocalWork::Steps(_) => (u32::try_from(steps).unwrap_or(u32::MAX), 1),
        };
        let unit = self.unit(way, examples, unit_steps, device);
        let speed = match device.capacity {
            Some(_) => 1.0,
            None => device.speed,
        };
        session.work(profile, way.start_up, unit.watts(), &unit.joules);
        session.start_up = session.seconds;
        session.stations.push(session.station());
        let parts = units.min(MOST_PARTS);
        let mut done = 0;
        for part in 1..=parts {
            // Both factors are below 2^32.
            let next = (u64::from(units) * u64::from(part) / u64::from(parts)) as u32;
            let amount = next - done;
            let jitter = profile
                .jitter
                .draw_mean(u64::from(amount).saturating_mul(unit_steps), stream);
            let cool = f64::from(amount) * unit.seconds * jitter / speed;
            session.work(profile, cool, unit.watts(), &unit.joules);
            session.marks.push((next, session.seconds));
            session.stations.push(session.station());
            done = next;
        }
        Ok(session)
    }

    /// The cost of an epoch, or of the mean step where steps are counted.
    fn unit(&self, way: &Way, examples: u64, unit_steps: u64, device: &Device) -> StepCost {
        let batch = self.plan.batch.examples(examples);
        let mut pass = StepCost::default();
        let steps = match self.plan.privacy {
            Some(_) => {
                // Batches are drawn; each is of the expected size in the mean.
                let steps = unit_steps.max(1);
                pass.add(&way.step(batch), steps);
                steps
            }
            None => {
                let (whole, rest) = (examples / batch, examples % batch);
                pass.add(&way.step(batch), whole);
                if rest > 0 {
                    pass.add(&way.step(rest), 1);
                }
                whole + u64::from(rest > 0)
            }
        };
        if let Some(capacity) = device.capacity {
            let seconds = TRAINING_OVER_SERVING * capacity.seconds_an_example() * examples as f64;
            let factor = seconds / pass.seconds.max(f64::MIN_POSITIVE);
            let mut joules = Joules::default();
            joules.add(&pass.joules, factor);
            pass = StepCost { seconds, joules };
        }
        let share = match self.plan.work {
            LocalWork::Epochs(_) => 1.0,
            LocalWork::Steps(_) => 1.0 / steps.max(1) as f64,
        };
        let mut joules = Joules::default();
        joules.add(&pass.joules, share);
        StepCost {
            seconds: share * pass.seconds,
            joules,
        }
    }
}

impl Session {
    /// Works for what takes `cool` seconds on a cool device, its power shared as `shares` are.
    fn work(&mut self, profile: &DeviceProfile, cool: f64, watts: f64, shares: &Joules) {
        let done = self.after.work(profile, cool, watts);
        let idle = done.seconds * profile.thermal.idle.value;
        let busy = (done.joules - idle).max(0.0);
        let total = shares.total();
        if total > 0.0 {
            self.joules.add(shares, busy / total);
        }
        self.joules.idle += idle;
        self.seconds += done.seconds;
        self.cool_seconds += cool;
        self.after = done.after;
    }
}
