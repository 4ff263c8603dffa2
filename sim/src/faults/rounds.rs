//! Faults in the rounds of a run.

use fl_core::strategy::AnyState;
use fl_core::{ClientId, RoundId};

use super::{ClientFaults, FaultsRecord, Part};
use crate::error::SimError;
use crate::fleet::Vanishes;
use crate::population::{Engine, Population};
use crate::simulation::Simulation;

impl<P: Population, E: Engine> Simulation<P, E> {
    /// What befalls a client that was called in a round.
    pub(crate) fn faults_of(&self, round: RoundId, client: ClientId) -> ClientFaults {
        let faults = self.config.faults.as_ref();
        faults.map_or(ClientFaults::NONE, |faults| {
            faults.of_client(self.config.seed, round, client)
        })
    }

    /// Draws what befalls the cohort of a synchronous round. Who leaves is put into the fates.
    pub(crate) fn draw_faults(&mut self, round: RoundId) {
        let buffers = &mut self.buffers;
        buffers.faults.clear();
        buffers.gone.clear();
        buffers.suffered = FaultsRecord::default();
        let Some(faults) = &self.config.faults else {
            return;
        };
        for (&client, fate) in buffers.cohort.iter().zip(&mut buffers.fates) {
            let drawn = faults.of_client(self.config.seed, round, client);
            if let Some(part) = drawn.leaves {
                // On a device the journey says whether and when.
                fate.dropped |= self.devices.is_none();
                fate.vanishes = match part {
                    Part::Downloading => Vanishes::BeforeKeys,
                    Part::Training | Part::Sending => Vanishes::AfterShares,
                };
            }
            if buffers.training.binary_search(&client).is_ok() {
                buffers.suffered.count_called(&drawn);
            }
            buffers.faults.push(drawn);
        }
    }

    /// Before which of so many events of the round at hand the aggregator restarts, if it does.
    pub(crate) fn restarts_before(&self, events: usize) -> Option<usize> {
        let faults = self.config.faults.as_ref()?;
        let moment = faults.restart(self.config.seed, self.server.round())?;
        Some((moment * events as f64) as usize)
    }

    /// The aggregator restarts between rounds, from what a checkpoint would hold of it.
    pub(crate) fn restart_server(&mut self) -> Result<(), SimError> {
        let state = postcard::to_stdvec(self.server.state());
        let state = state.and_then(|bytes| postcard::from_bytes::<AnyState>(&bytes));
        let state = state.map_err(|error| SimError::Encode {
            what: "strategy's state",
            reason: error.to_string(),
        })?;
        self.server = self.server_at(state, self.server.round());
        Ok(())
    }
}
