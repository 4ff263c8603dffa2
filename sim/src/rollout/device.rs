//! A device's part in a rollout: what it has, and what follows from an offer. Both forms of the fleet
//! go by this.

use super::registry::VersionId;
use super::server::Offer;

/// Parts in which a download comes. One that breaks off has whole parts, and goes on with the next.
pub(super) const PARTS: u8 = 8;

/// What devices do, by chance; all for one step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Habits {
    /// Probability that a device that is online checks in.
    pub(super) check_in: f64,
    /// Probability that one that is online goes offline.
    pub(super) leave: f64,
    /// Probability that one that is offline comes back.
    pub(super) back: f64,
    /// Share of devices that are offline when the rollout begins; it stays so.
    pub(super) offline: f64,
    /// Probability that a download breaks off.
    pub(super) interrupted: f64,
    /// Probability that what was loaded cannot be installed.
    pub(super) failed: f64,
}

/// A download under way: content is addressed, so what is there of it is of use only for the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Partial {
    /// The version that it patches; none of a whole file.
    from: Option<VersionId>,
    to: VersionId,
    /// Parts that are there, fewer than all.
    parts: u8,
}

/// What a device has on its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Disk {
    /// The version that it runs: always a whole one.
    pub(super) has: VersionId,
    /// The one before it, kept for the way back.
    pub(super) previous: Option<VersionId>,
    /// What is there of the next one.
    pub(super) partial: Option<Partial>,
}

/// What a device is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// Nothing; what was loaded of another version is thrown away.
    Rest,
    /// To take the version before out of the cache.
    Swap(VersionId),
    /// To load the rest of something and install it.
    Load(Load),
}

/// A download.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Load {
    from: Option<VersionId>,
    pub(super) to: VersionId,
    bytes: u64,
    /// Parts that are there already.
    pub(super) start: u8,
    /// Whether it leads away from a withdrawn version, which is not kept.
    back: bool,
}

impl Disk {
    pub(super) fn new(has: VersionId) -> Self {
        Self {
            has,
            previous: None,
            partial: None,
        }
    }

    /// What follows from an offer.
    pub(super) fn task(&self, offer: Offer) -> Task {
        let (from, to, bytes, back) = match offer {
            Offer::Keep => return Task::Rest,
            Offer::Back { to, .. } if self.previous == Some(to) => return Task::Swap(to),
            Offer::Back { to, bytes } => (None, to, bytes, true),
            Offer::Full { version, bytes } => (None, version, bytes, false),
            Offer::Patch { from, to, bytes } => (Some(from), to, bytes, false),
        };
        let same = |partial: &Partial| partial.from == from && partial.to == to;
        let start = self.partial.filter(same).map_or(0, |partial| partial.parts);
        Task::Load(Load {
            from,
            to,
            bytes,
            start,
            back,
        })
    }

    /// The disk without anything that was loaded.
    pub(super) fn rested(self) -> Self {
        Self {
            partial: None,
            ..self
        }
    }

    /// The disk after the version before came out of the cache; the withdrawn one is deleted.
    pub(super) fn swapped(self, to: VersionId) -> Self {
        Self::new(to)
    }
}

impl Load {
    /// Whether it is a patch.
    pub(super) fn is_patch(&self) -> bool {
        self.from.is_some()
    }

    /// Bytes of the parts from where it began up to `end`.
    pub(super) fn bytes_to(&self, end: u8) -> u64 {
        let ends = |part: u8| {
            let bytes = u128::from(self.bytes) * u128::from(part) / u128::from(PARTS);
            bytes as u64
        };
        ends(end) - ends(self.start)
    }

    /// The disk after it broke off with so many parts.
    pub(super) fn broken(&self, disk: Disk, parts: u8) -> Disk {
        let partial = Partial {
            from: self.from,
            to: self.to,
            parts,
        };
        Disk {
            partial: (parts > 0).then_some(partial),
            ..disk
        }
    }

    /// The disk after it was installed: what ran before is kept, unless it was withdrawn.
    pub(super) fn installed(&self, disk: Disk) -> Disk {
        Disk {
            has: self.to,
            previous: (!self.back).then_some(disk.has),
            partial: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: VersionId = VersionId(0);
    const NEW: VersionId = VersionId(1);

    fn load(disk: Disk, offer: Offer) -> Load {
        match disk.task(offer) {
            Task::Load(load) => load,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_download_is_taken_up_and_no_byte_is_loaded_twice() {
        let offer = Offer::Patch {
            from: OLD,
            to: NEW,
            bytes: 1001,
        };
        let mut disk = Disk::new(OLD);
        let mut loaded = 0;
        for parts in [3, 3, 7] {
            let load = load(disk, offer);
            loaded += load.bytes_to(parts);
            disk = load.broken(disk, parts);
            assert_eq!(disk.has, OLD);
        }
        let last = load(disk, offer);
        assert_eq!(last.start, 7);
        loaded += last.bytes_to(PARTS);
        assert_eq!(loaded, 1001);
        disk = last.installed(disk);
        assert_eq!(
            (disk.has, disk.previous, disk.partial),
            (NEW, Some(OLD), None)
        );
        // The whole file is something else than its patch.
        let full = Offer::Full {
            version: NEW,
            bytes: 8,
        };
        let broken = last.broken(Disk::new(OLD), 5);
        assert_eq!(load(broken, full).start, 0);
        assert_eq!(load(broken, offer).start, 5);
        assert_eq!(broken.task(Offer::Keep), Task::Rest);
        assert_eq!(broken.rested(), Disk::new(OLD));
    }

    #[test]
    fn the_way_back_is_in_the_cache_or_is_loaded() {
        let back = Offer::Back { to: OLD, bytes: 16 };
        let cached = Disk {
            has: NEW,
            previous: Some(OLD),
            partial: None,
        };
        assert_eq!(cached.task(back), Task::Swap(OLD));
        assert_eq!(cached.swapped(OLD), Disk::new(OLD));
        let without = Disk::new(NEW);
        let load = load(without, back);
        assert!(!load.is_patch());
        assert_eq!(load.bytes_to(PARTS), 16);
        // What was withdrawn is not kept.
        assert_eq!(load.installed(without), Disk::new(OLD));
    }
}
