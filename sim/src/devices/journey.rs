//! A client's way through a round, if nobody stops it.

use fl_core::{Bytes, ClientId, Cost, RoundId, VirtualTime, WorkLimit};
use serde::{Deserialize, Serialize};

use crate::events::{Happening, Scheduled};
use crate::fleet::{Device, Session};
use crate::schedule::seconds;

/// One client's part in a round, in virtual time: it downloads its task, trains, and sends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Journey {
    pub(crate) client: ClientId,
    /// The round in which it was called.
    pub(crate) round: RoundId,
    pub(crate) started: VirtualTime,
    pub(crate) downloaded: VirtualTime,
    pub(crate) trained: VirtualTime,
    /// When the last byte of its update comes.
    pub(crate) reported: VirtualTime,
    /// When it leaves, if it does so before that.
    pub(crate) leaves: Option<VirtualTime>,
    /// The work that it does.
    pub(crate) limit: WorkLimit,
    /// Whether it does less than it was asked so as to be in time.
    pub(crate) cut: bool,
    /// Bytes of its task.
    pub(crate) down: u64,
    /// Bytes of its update.
    pub(crate) up: u64,
    /// Its training.
    pub(crate) session: Session,
    pub(crate) device: Device,
}

/// One client's part in one round. Times are seconds of the virtual clock; all is modelled, and **not
/// private**.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientPart {
    /// The round in which it was called.
    pub round: u64,
    /// The client.
    pub client: u64,
    /// Its device class.
    pub device: String,
    /// Whether it has an NPU that works.
    pub npu: bool,
    /// When it was called.
    pub started: f64,
    /// When it had its task, or would have had it.
    pub downloaded: f64,
    /// When its training was done, or would have been.
    pub trained: f64,
    /// When its part was over.
    pub ended: f64,
    /// How it ended.
    pub end: End,
    /// Joules of training, beyond the idle device's.
    pub joules: f64,
    /// Degrees Celsius afterwards.
    pub celsius: f64,
}

/// How a client's part in a round ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its update is in the sum.
    Counted,
    /// It left.
    Left,
    /// The deadline came first.
    Late,
    /// The round had enough first.
    Surplus,
    /// It came, and was refused.
    Refused,
    /// Its update was lost on the way, or whom it was sent to.
    Lost,
}

impl End {
    /// The name in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Counted => "counted",
            Self::Left => "left",
            Self::Late => "late",
            Self::Surplus => "surplus",
            Self::Refused => "refused",
            Self::Lost => "lost",
        }
    }

    /// When a journey with this end in a round that ended at `ended` is over.
    pub(crate) fn moment(self, journey: &Journey, ended: VirtualTime) -> VirtualTime {
        match self {
            Self::Counted | Self::Refused => journey.reported,
            Self::Left => journey.leaves.unwrap_or(ended).min(ended),
            Self::Late | Self::Surplus | Self::Lost => ended.min(journey.reported),
        }
    }
}

/// How far a journey went.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Part {
    /// Bytes that the device had.
    pub(crate) down: u64,
    /// Bytes that it had sent.
    pub(crate) up: u64,
    /// The share of its training that was done.
    pub(crate) trained: f64,
}

impl Journey {
    /// How it ends, if nobody ends it before.
    pub(crate) fn end(&self) -> Scheduled {
        let (time, what) = match self.leaves {
            Some(leaves) => (leaves, Happening::Leaves),
            None => (self.reported, Happening::Reports),
        };
        Scheduled {
            time,
            what,
            client: self.client,
        }
    }

    /// What it costs if it comes to its end.
    pub(crate) fn cost(&self) -> Cost {
        Cost {
            download: Bytes(self.down),
            upload: Bytes(self.up),
            time: self.reported - self.started,
        }
    }

    /// Its training, as far as it is at `moment`.
    pub(crate) fn session_until(&self, moment: VirtualTime) -> Session {
        let over = moment.min(self.trained);
        self.session.until(seconds(over - self.downloaded))
    }

    /// How far it is at `moment`.
    pub(crate) fn until(&self, moment: VirtualTime) -> Part {
        let share = |from: VirtualTime, to: VirtualTime| match moment >= to {
            true => 1.0,
            false => seconds(moment - from) / seconds(to - from),
        };
        let bytes = |bytes: u64, share: f64| match share >= 1.0 {
            true => bytes,
            false => (bytes as f64 * share) as u64,
        };
        Part {
            down: bytes(self.down, share(self.started, self.downloaded)),
            trained: share(self.downloaded, self.trained),
            up: bytes(self.up, share(self.trained, self.reported)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{DeviceConfig, Fleet};
    use fl_core::Seed;
    use fl_edge::device::Heat;

    fn journey() -> Journey {
        let fleet = Fleet::new(&DeviceConfig::default(), Seed(1)).unwrap();
        Journey {
            client: ClientId(1),
            round: RoundId(0),
            started: VirtualTime(1_000_000),
            downloaded: VirtualTime(3_000_000),
            trained: VirtualTime(7_000_000),
            reported: VirtualTime(8_000_000),
            leaves: None,
            limit: WorkLimit::Full,
            cut: false,
            down: 1001,
            up: 500,
            session: Session::idle(Heat { celsius: 30.0 }),
            device: fleet.device(ClientId(1)),
        }
    }

    #[test]
    fn a_journey_goes_through_its_parts_one_after_the_other() {
        // (microseconds, down, trained, up)
        let cases = [
            (0, 0, 0.0, 0),
            (1_000_000, 0, 0.0, 0),
            (2_000_000, 500, 0.0, 0),
            (3_000_000, 1001, 0.0, 0),
            (4_000_000, 1001, 0.25, 0),
            (7_500_000, 1001, 1.0, 250),
            (8_000_000, 1001, 1.0, 500),
            (9_000_000, 1001, 1.0, 500),
        ];
        for (at, down, trained, up) in cases {
            let part = journey().until(VirtualTime(at));
            assert_eq!((part.down, part.up), (down, up), "{at}");
            assert!((part.trained - trained).abs() < 1e-12, "{at}");
        }
    }

    #[test]
    fn whoever_leaves_does_not_report() {
        let mut journey = journey();
        let end = |journey: &Journey| (journey.end().time.0, journey.end().what);
        assert_eq!(end(&journey), (8_000_000, Happening::Reports));
        journey.leaves = Some(VirtualTime(2_000_000));
        assert_eq!(end(&journey), (2_000_000, Happening::Leaves));
        let moment = |end: End, ended| end.moment(&journey, VirtualTime(ended)).0;
        assert_eq!(moment(End::Left, 9_000_000), 2_000_000);
        assert_eq!(moment(End::Left, 1_500_000), 1_500_000);
        assert_eq!(moment(End::Late, 5_000_000), 5_000_000);
        assert_eq!(moment(End::Surplus, 9_000_000), 8_000_000);
        assert_eq!(moment(End::Counted, 9_000_000), 8_000_000);
    }
}
