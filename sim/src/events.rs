//! What is going to happen, in the order of virtual time.
//!
//! The order is total and depends on what happens alone: by time, then by what it is, then by whose
//! it is. So it does not matter when or by which thread an event was entered.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use fl_core::{ClientId, VirtualTime};
use serde::{Deserialize, Serialize};

/// What happens to a client.
///
/// At the same moment those that leave do so before others report: a device that is unplugged while
/// it sends its last byte is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Happening {
    /// It is gone.
    Leaves,
    /// All of its update has come.
    Reports,
    /// The server looks for clients again.
    Calls,
}

/// Something that is going to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Scheduled {
    /// When.
    pub(crate) time: VirtualTime,
    /// What.
    pub(crate) what: Happening,
    /// To whom.
    pub(crate) client: ClientId,
}

/// What is going to happen, the next first.
#[derive(Clone, Debug, Default)]
pub(crate) struct EventQueue(BinaryHeap<Reverse<Scheduled>>);

impl EventQueue {
    pub(crate) fn push(&mut self, time: VirtualTime, what: Happening, client: ClientId) {
        self.0.push(Reverse(Scheduled { time, what, client }));
    }

    /// The next event.
    pub(crate) fn pop(&mut self) -> Option<Scheduled> {
        self.0.pop().map(|Reverse(next)| next)
    }

    /// When the next event is.
    pub(crate) fn next_time(&self) -> Option<VirtualTime> {
        self.0.peek().map(|Reverse(next)| next.time)
    }

    /// Everything that is going to happen, in order; for a checkpoint.
    pub(crate) fn to_sorted(&self) -> Vec<Scheduled> {
        let mut all: Vec<Scheduled> = self.0.iter().map(|Reverse(next)| *next).collect();
        all.sort_unstable();
        all
    }
}

impl FromIterator<Scheduled> for EventQueue {
    fn from_iter<I: IntoIterator<Item = Scheduled>>(events: I) -> Self {
        Self(events.into_iter().map(Reverse).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn happening() -> impl Strategy<Value = Happening> {
        prop_oneof![
            Just(Happening::Leaves),
            Just(Happening::Reports),
            Just(Happening::Calls),
        ]
    }

    proptest! {
        #[test]
        fn the_order_is_that_of_the_events_however_they_are_entered(
            mut events in proptest::collection::vec((0u64..5, happening(), 0u64..4), 0..40),
            saved in 0usize..40,
        ) {
            let mut queue = EventQueue::default();
            for &(time, what, client) in &events {
                queue.push(VirtualTime(time), what, ClientId(client));
            }
            events.sort_unstable();
            for (index, &(time, what, client)) in events.iter().enumerate() {
                if index == saved {
                    // Through a checkpoint.
                    let all = queue.to_sorted();
                    prop_assert_eq!(all.len(), events.len() - index);
                    queue = all.into_iter().collect();
                }
                let next = Scheduled { time: VirtualTime(time), what, client: ClientId(client) };
                prop_assert_eq!(queue.next_time(), Some(next.time));
                prop_assert_eq!(queue.pop(), Some(next));
            }
            prop_assert_eq!(queue.pop(), None);
        }
    }
}
