//! What was released, in order: the record that an accountant's answer follows from.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::PrivacyError;
use crate::event::DpEvent;

/// One event, so many times in a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerEntry {
    /// What happened.
    pub event: DpEvent,
    /// How often.
    pub count: u64,
}

/// The ordered list of all events.
///
/// An event that equals the one before raises its count, so that a training run of many equal
/// rounds is one entry. [`Ledger::canonical`] is one text for one ledger: equal ledgers have equal
/// texts and digests, also after a round trip.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Vec<LedgerEntry>", into = "Vec<LedgerEntry>")]
pub struct Ledger {
    entries: Vec<LedgerEntry>,
}

impl From<Vec<LedgerEntry>> for Ledger {
    fn from(entries: Vec<LedgerEntry>) -> Self {
        let mut ledger = Self::default();
        for entry in entries {
            ledger.record(&entry.event, entry.count);
        }
        ledger
    }
}

impl From<Ledger> for Vec<LedgerEntry> {
    fn from(ledger: Ledger) -> Self {
        ledger.entries
    }
}

impl Ledger {
    /// Appends `count` times the event; a count of 0 leaves the ledger as it is.
    pub fn record(&mut self, event: &DpEvent, count: u64) {
        if count == 0 {
            return;
        }
        if let Some(last) = self.entries.last_mut()
            && last.event == *event
            && let Some(sum) = last.count.checked_add(count)
        {
            last.count = sum;
            return;
        }
        self.entries.push(LedgerEntry {
            event: event.clone(),
            count,
        });
    }

    /// The entries, oldest first.
    #[must_use]
    pub fn entries(&self) -> &[LedgerEntry] {
        &self.entries
    }

    /// Whether nothing was recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The canonical text: JSON without spaces, fields in the order of their declaration, numbers
    /// in their shortest form that reads back exactly.
    #[must_use]
    pub fn canonical(&self) -> String {
        serde_json::to_string(&self.entries)
            .expect("a ledger holds only numbers and texts, which JSON can write")
    }

    /// Reads [`Self::canonical`].
    ///
    /// # Errors
    /// [`PrivacyError::Malformed`] for what is not a ledger, also when an event's numbers are out
    /// of range.
    pub fn parse(text: &str) -> Result<Self, PrivacyError> {
        serde_json::from_str(text).map_err(|error| PrivacyError::Malformed {
            what: "privacy ledger",
            line: error.line(),
            column: error.column(),
            reason: error.to_string(),
        })
    }

    /// SHA-256 of [`Self::canonical`].
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.canonical().as_bytes()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::NoiseMultiplier;

    fn gaussian(noise: f64) -> DpEvent {
        DpEvent::gaussian(NoiseMultiplier::new(noise).unwrap())
    }

    #[test]
    fn equal_neighbours_join_and_the_text_returns() {
        let mut ledger = Ledger::default();
        for (noise, count) in [(1.0, 2), (1.0, 0), (1.0, 3), (0.1, 1), (1.0, 1)] {
            ledger.record(&gaussian(noise), count);
        }
        let counts: Vec<u64> = ledger.entries().iter().map(|entry| entry.count).collect();
        assert_eq!(counts, [5, 1, 1]);
        assert_eq!(
            ledger.canonical(),
            r#"[{"event":{"event":"gaussian","noise_multiplier":1.0},"count":5},{"event":{"event":"gaussian","noise_multiplier":0.1},"count":1},{"event":{"event":"gaussian","noise_multiplier":1.0},"count":1}]"#
        );
        let back = Ledger::parse(&ledger.canonical()).unwrap();
        assert_eq!(back, ledger);
        assert_eq!(back.digest(), ledger.digest());
    }

    #[test]
    fn what_is_no_ledger_is_refused_with_its_place() {
        for text in [
            "",
            "[",
            "[1]",
            r#"[{"event":{"event":"gaussian","noise_multiplier":-1},"count":1}]"#,
            r#"[{"event":{"event":"gaussian","noise_multiplier":1},"count":-1}]"#,
            r#"[{"event":{"event":"gauss","noise_multiplier":1},"count":1}]"#,
            r#"[{"event":{"event":"no-op"},"count":1,"more":1}]"#,
        ] {
            let error = Ledger::parse(text).unwrap_err();
            assert!(
                matches!(error, PrivacyError::Malformed { line: 0..=1, .. }),
                "{text}"
            );
        }
    }
}
