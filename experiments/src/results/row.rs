//! The rows of the result tables: one struct per Parquet file.
//!
//! A row knows its columns, so the journal, the Parquet files and `verify` treat all tables alike.

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// `u64`.
    Count,
    /// `f64`, never missing.
    Real,
    /// `f64`, may be missing.
    OptionalReal,
    /// UTF-8 text.
    Text,
}

/// One value of a row.
#[derive(Clone, Debug)]
pub enum Cell {
    /// A whole number.
    Count(u64),
    /// A real number, or nothing.
    Real(Option<f64>),
    /// Text.
    Text(String),
}

impl Cell {
    /// Whether two cells hold the same bits.
    #[must_use]
    pub fn same_bits(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Count(a), Self::Count(b)) => a == b,
            (Self::Real(a), Self::Real(b)) => a.map(f64::to_bits) == b.map(f64::to_bits),
            (Self::Text(a), Self::Text(b)) => a == b,
            _ => false,
        }
    }
}

impl core::fmt::Display for Cell {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Count(value) => write!(f, "{value}"),
            // The shortest digits that read back as the same bits.
            Self::Real(Some(value)) => write!(f, "{value:?}"),
            Self::Real(None) => f.write_str("nothing"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// A Rust type that a column can hold.
pub(crate) trait Field: Sized {
    const KIND: ColumnKind;
    fn cell(&self) -> Cell;
    fn from_cell(cell: &Cell) -> Option<Self>;
}

impl Field for u64 {
    const KIND: ColumnKind = ColumnKind::Count;
    fn cell(&self) -> Cell {
        Cell::Count(*self)
    }
    fn from_cell(cell: &Cell) -> Option<Self> {
        match cell {
            Cell::Count(value) => Some(*value),
            _ => None,
        }
    }
}

impl Field for f64 {
    const KIND: ColumnKind = ColumnKind::Real;
    fn cell(&self) -> Cell {
        Cell::Real(Some(*self))
    }
    fn from_cell(cell: &Cell) -> Option<Self> {
        match cell {
            Cell::Real(value) => *value,
            _ => None,
        }
    }
}

impl Field for Option<f64> {
    const KIND: ColumnKind = ColumnKind::OptionalReal;
    fn cell(&self) -> Cell {
        Cell::Real(*self)
    }
    fn from_cell(cell: &Cell) -> Option<Self> {
        match cell {
            Cell::Real(value) => Some(*value),
            _ => None,
        }
    }
}

impl Field for String {
    const KIND: ColumnKind = ColumnKind::Text;
    fn cell(&self) -> Cell {
        Cell::Text(self.clone())
    }
    fn from_cell(cell: &Cell) -> Option<Self> {
        match cell {
            Cell::Text(text) => Some(text.clone()),
            _ => None,
        }
    }
}

/// A row of one of the result tables.
pub trait Row: Sized {
    /// The table; its file is `TABLE.parquet`.
    const TABLE: &'static str;
    /// Name and type of every column, in order, without the leading `variant`.
    const COLUMNS: &'static [(&'static str, ColumnKind)];

    /// The values, in the order of [`Self::COLUMNS`].
    fn cells(&self) -> Vec<Cell>;

    /// The row with these values; none when their number or kinds are not the columns'.
    fn from_cells(cells: &[Cell]) -> Option<Self>;
}

macro_rules! row {
    (
        $(#[$doc:meta])*
        $table:literal $name:ident { $( $(#[$field_doc:meta])* $field:ident : $kind:ty, )+ }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize)]
        pub struct $name {
            $( $(#[$field_doc])* pub $field: $kind, )+
        }

        impl Row for $name {
            const TABLE: &'static str = $table;
            const COLUMNS: &'static [(&'static str, ColumnKind)] =
                &[$( (stringify!($field), <$kind as Field>::KIND), )+];

            fn cells(&self) -> Vec<Cell> {
                vec![$( self.$field.cell(), )+]
            }

            fn from_cells(cells: &[Cell]) -> Option<Self> {
                let [$( $field, )+] = cells else { return None };
                Some(Self { $( $field: <$kind as Field>::from_cell($field)?, )+ })
            }
        }
    };
}

row! {
    /// One round of one variant.
    "rounds" RoundRow {
        /// The round, counted from zero: it made model version `round + 1`.
        round: u64,
        /// Clients selected.
        cohort: u64,
        /// Clients whose update is in the sum.
        reported: u64,
        /// Clients that vanished, had no examples, or were stragglers that were dropped.
        dropped: u64,
        /// Slow clients of the cohort, whatever became of them.
        stragglers: u64,
        /// Clients whose update was refused.
        rejected: u64,
        /// Clients that trained and reported when enough others had.
        surplus: u64,
        /// Values of updates that were cut to the encoding's range.
        saturated: u64,
        /// Training examples of the clients in the sum.
        examples: u64,
        /// Examples processed by all clients that trained, all epochs together.
        examples_processed: u64,
        /// Mini-batch steps taken by all clients that trained.
        steps: u64,
        /// Mean loss seen during training; nothing when no client is in the sum.
        train_loss: Option<f64>,
        /// L2 norm of the change of the global parameters.
        update_norm: f64,
        /// The learning rate at the first local step.
        learning_rate: f64,
        /// Bytes of parameters sent to the cohort.
        bytes_down: u64,
        /// Bytes of updates received.
        bytes_up: u64,
    }
}

row! {
    /// One evaluation of the global model.
    "evaluation" EvaluationRow {
        /// Rounds done; zero for the initial model.
        round: u64,
        /// Mean loss on the test set.
        test_loss: Option<f64>,
        /// Accuracy on the test set.
        test_accuracy: Option<f64>,
        /// Mean loss on the test set of the model served in int8; nothing where not asked for.
        test_loss_int8: Option<f64>,
        /// Accuracy on the test set of the model served in int8; nothing where not asked for.
        test_accuracy_int8: Option<f64>,
        /// Mean loss over the clients' training examples.
        train_loss: Option<f64>,
        /// Accuracy over the clients' training examples.
        train_accuracy: Option<f64>,
        /// Clients over which the training loss was taken.
        train_clients: u64,
    }
}

row! {
    /// The global model on one client, at the last evaluation.
    "clients" ClientRow {
        /// Rounds done.
        round: u64,
        /// The client.
        client: u64,
        /// `test` for its held-out examples, `train` for its training examples.
        split: String,
        /// How many examples they are.
        examples: u64,
        /// Their mean loss.
        loss: f64,
        /// Their accuracy.
        accuracy: f64,
    }
}

row! {
    /// How many training examples of a class a client holds; only for a sample of the clients.
    "partition" PartitionRow {
        /// The client.
        client: u64,
        /// The class.
        class: u64,
        /// The class's name, or its number where it has none.
        class_name: String,
        /// The client's training examples of that class.
        examples: u64,
    }
}

row! {
    /// What a private round released and has spent.
    "privacy" PrivacyRow {
        /// The round, counted from zero.
        round: u64,
        /// `simulated`, or `hypothetical` when epsilon is that of a larger deployment than the
        /// simulated one.
        guarantee: String,
        /// Whom the budget and the noise are about: `released`, whoever sees the released models
        /// (`epsilon`), or `server` (`epsilon_unamplified`).
        observer: String,
        /// Upper bound of epsilon for all that was released so far, this round included.
        epsilon: f64,
        /// No analysis can promise less; 0 where the accountant has no such bound.
        epsilon_lower: f64,
        /// Upper bound for whoever also sees who takes part in each round; with clients' own noise,
        /// for the server.
        epsilon_unamplified: f64,
        /// The delta of all three.
        delta: f64,
        /// Standard deviation of the noise on each value of the sum: of updates, or of a step's
        /// gradients where clients protect single examples.
        noise_std: f64,
        /// The clipping norm of the round.
        max_norm: f64,
        /// 1 when the round's mean was released, 0 when too few clients reported for their noise.
        released: u64,
        /// Updates, or gradients of single examples, that were clipped. Not private: for diagnosis,
        /// and not covered by epsilon.
        nonprivate_clipped: u64,
        /// Updates that were not finite and counted as zero. Not private.
        nonprivate_zeroed: u64,
        /// Coordinates of the sum that left their ring. Not private.
        nonprivate_wrapped: u64,
    }
}

row! {
    /// What leads from the int8 model of one evaluation to that of the next.
    "patches" PatchRow {
        /// Rounds that the newer model has seen.
        round: u64,
        /// Rounds that the older one had seen.
        from_round: u64,
        /// Bytes of the newer model's file.
        file_bytes: u64,
        /// Bytes of the patch.
        patch_bytes: u64,
    }
}

row! {
    /// The groups of a round whose means were combined.
    "groups" GroupsRow {
        /// The round, counted from zero.
        round: u64,
        /// Groups that were formed.
        formed: u64,
        /// Groups whose means were combined; 0 when there were too few, and the round was given up.
        combined: u64,
        /// Group means that were taken away from each coordinate as the largest and the smallest.
        trimmed: u64,
        /// L2 distance of the combined mean from the weighted mean of the same clients.
        distance: f64,
    }
}

row! {
    /// The pruned weights of a round.
    "pruning" PruningRow {
        /// The round, counted from zero.
        round: u64,
        /// Weights that may be pruned: all but biases, normalisations, embeddings and positions.
        weights: u64,
        /// Those that were zero while the round's clients trained, and are after it.
        pruned: u64,
        /// Their share.
        sparsity: f64,
    }
}

row! {
    /// A round on the devices of the fleet. Times, energies and temperatures are modelled, and told of
    /// no fewer devices than `telemetry.minimum_group`.
    "fleet" FleetRow {
        /// The round, counted from zero.
        round: u64,
        /// When it began, in seconds of the virtual clock.
        started_seconds: f64,
        /// When it ended.
        ended_seconds: f64,
        /// How it ended: `applied`, `lowered` (with the lowered threshold), `too-few-ready`,
        /// `too-few-updates` or `aborted`.
        end: String,
        /// Clients whose eligibility was asked for.
        asked: u64,
        /// Those of them that were eligible.
        eligible: u64,
        /// Not eligible for too few examples.
        no_examples: u64,
        /// Not eligible because they took part as often as they may.
        no_participations: u64,
        /// Not eligible because the training does not fit into their memory.
        no_memory: u64,
        /// Not eligible for an empty battery.
        no_battery: u64,
        /// Not eligible because they were not on a charger.
        no_charging: u64,
        /// Not eligible for want of a network that is not metered.
        no_wifi: u64,
        /// Not eligible because they were in use.
        no_idle: u64,
        /// Clients told to train.
        called: u64,
        /// Clients that left while they downloaded.
        left_downloading: u64,
        /// Clients that left while they trained.
        left_training: u64,
        /// Clients that left while they sent.
        left_uploading: u64,
        /// Clients still at work at the deadline.
        late: u64,
        /// Clients still at work when the round had enough.
        surplus: u64,
        /// Clients whose update was lost with their region, or on the way.
        lost: u64,
        /// Clients in the sum that did a part of their work so as to be in time.
        partial: u64,
        /// Seconds from the call to the report of the clients in the sum: mean.
        seconds_mean: Option<f64>,
        /// The same: median.
        seconds_median: Option<f64>,
        /// The same: 90th percentile.
        seconds_p90: Option<f64>,
        /// Mean seconds of downloading.
        download_seconds: Option<f64>,
        /// Mean seconds of training.
        training_seconds: Option<f64>,
        /// Mean seconds of sending.
        upload_seconds: Option<f64>,
        /// Mean seconds from the report to the end of the round.
        waiting_seconds: Option<f64>,
        /// Joules of training of all who began it, beyond the idle device's.
        joules: Option<f64>,
        /// Those of clients whose update did not count.
        joules_wasted: Option<f64>,
        /// Joules on CPUs.
        joules_cpu: Option<f64>,
        /// Joules on GPUs.
        joules_gpu: Option<f64>,
        /// Joules on NPUs.
        joules_npu: Option<f64>,
        /// Clients slowed down by heat.
        throttled: u64,
        /// Mean of the temperatures after training, in degrees Celsius.
        celsius_mean: Option<f64>,
        /// Bytes moved for nothing.
        bytes_wasted: u64,
        /// Mean number of versions by which the updates in the sum were stale.
        staleness_mean: f64,
        /// The largest.
        staleness_max: u64,
        /// Clients at work when the round ended.
        in_flight: u64,
    }
}

row! {
    /// The regional aggregators of a round.
    "regions" RegionsRow {
        /// The round, counted from zero.
        round: u64,
        /// Regions with a client that was told to train.
        formed: u64,
        /// Regions that failed in the round.
        failed: u64,
        /// Clients that were lost with them.
        lost: u64,
        /// Regions that handed a sum up.
        summed: u64,
    }
}

row! {
    /// Faults that were done to a round on purpose.
    "faults" FaultsRow {
        /// The round, counted from zero.
        round: u64,
        /// Clients that left before they trained.
        left_before: u64,
        /// Clients that left while they trained.
        left_during: u64,
        /// Clients that left when they had trained.
        left_after: u64,
        /// Clients whose network was slow.
        slowed: u64,
        /// Reports that never came.
        lost: u64,
        /// Reports that came a second time and were refused.
        duplicated: u64,
        /// Updates that were damaged on the way and refused.
        corrupted: u64,
        /// Updates of accepted clients that were not finite.
        not_finite: u64,
        /// Clients whose NPU was not there.
        no_delegate: u64,
        /// 1 when the aggregator restarted.
        restarts: u64,
    }
}

row! {
    /// A tensor of the global model after a round, by its fingerprint: enough to say which tensor of
    /// a repetition is the first that differs.
    "tensors" TensorRow {
        /// The round, counted from zero, that made it.
        round: u64,
        /// The tensor's name.
        tensor: String,
        /// The first 16 hexadecimal digits of SHA-256 of its values, little-endian `f32`.
        digest: String,
    }
}

row! {
    /// One client's part in one round: only with `telemetry.per_client`, for it is **not private**.
    "timeline" TimelineRow {
        /// The round, counted from zero, in which the client was called.
        round: u64,
        /// The client.
        client: u64,
        /// Its device class.
        device: String,
        /// Whether its NPU works.
        npu: u64,
        /// When it was called, in seconds of the virtual clock.
        started_seconds: f64,
        /// When it would have its task, or had it.
        downloaded_seconds: f64,
        /// When it would be done training, or was.
        trained_seconds: f64,
        /// When its part was over.
        ended_seconds: f64,
        /// How: `counted`, `left`, `late`, `surplus`, `refused` or `lost`.
        end: String,
        /// Joules of training, beyond the idle device's.
        joules: f64,
        /// Degrees Celsius afterwards.
        celsius: f64,
    }
}

row! {
    /// A model version on a day of a rollout. Counts of groups that are too small are nothing.
    "rollout" RolloutRow {
        /// Days since the rollout began, from 1.
        day: u64,
        /// The version, from 0, with which every device began.
        version: u64,
        /// Rounds that its model has seen.
        round: u64,
        /// What became of it by the end of the day: `candidate`, `current`, `replaced` or
        /// `withdrawn`.
        state: String,
        /// Number of the newest release, from 1; 0 before the first.
        release: u64,
        /// Share of the fleet in the stage that is open at the end of the day; nothing between
        /// releases.
        stage: Option<f64>,
        /// What happened to the version on this day, with hours since the rollout began.
        events: String,
        /// Devices in all.
        fleet: u64,
        /// Devices that run it at the end of the day.
        devices: Option<f64>,
        /// Those of them that are offline.
        offline: Option<f64>,
        /// Check-ins of devices that ran it.
        check_ins: Option<f64>,
        /// Bytes of its file that were loaded.
        bytes_full: u64,
        /// Bytes of patches to it that were loaded.
        bytes_patch: u64,
        /// Times it was installed after a download.
        installed: Option<f64>,
        /// Downloads of it that broke off.
        interrupted: Option<f64>,
        /// Times it could not be installed.
        failed: Option<f64>,
        /// Times a device came back to it from its cache.
        restored: Option<f64>,
        /// Devices that reported how good it is.
        reports: Option<f64>,
        /// Their mean accuracy.
        accuracy: Option<f64>,
    }
}

row! {
    /// What the secure aggregation of a round did, and what it weighed.
    "secagg" SecAggRow {
        /// The round, counted from zero.
        round: u64,
        /// What was really done: `real`, `sampled` or `ideal`.
        mode: String,
        /// Sessions.
        sessions: u64,
        /// Clients of all sessions.
        clients: u64,
        /// Neighbours of a client in the largest session.
        neighbours: u64,
        /// Shares that reveal a secret there.
        threshold: u64,
        /// The fewest survivors there.
        min_survivors: u64,
        /// Bits of a coordinate there.
        ring_bits: u64,
        /// Clients that left before they advertised keys.
        left_before_keys: u64,
        /// Clients that left when they had.
        left_after_keys: u64,
        /// Clients that left when they had shared their secrets: vanished, late, not needed, or with
        /// an update that is not finite.
        left_after_shares: u64,
        /// Clients that left when their masked input had come; it is in the sum.
        left_after_input: u64,
        /// Clients whose inputs came.
        inputs: u64,
        /// Clients whose inputs were masked and unmasked for real.
        masked: u64,
        /// Sessions that failed. Unless it is 0 the round was given up; with a robust mean of groups,
        /// only when too few are left, which `groups` says.
        failed: u64,
        /// The first stage in which one failed, or nothing.
        failed_stage: String,
        /// Pairs of this round's sums with recent ones that differ by fewer clients than the minimum
        /// of survivors.
        close_pairs: u64,
        /// Bytes up: keys.
        bytes_advertise_keys: u64,
        /// Bytes down: everybody's keys.
        bytes_roster: u64,
        /// Bytes up: sealed shares.
        bytes_share_keys: u64,
        /// Bytes down: those of the neighbours.
        bytes_forwarded_shares: u64,
        /// Bytes up: masked vectors.
        bytes_masked_input: u64,
        /// Bytes down: who survived.
        bytes_survivors: u64,
        /// Bytes up: signatures.
        bytes_signed_survivors: u64,
        /// Bytes down: the others' signatures.
        bytes_unmask: u64,
        /// Bytes up: shares that unmask the sum.
        bytes_unmasking_shares: u64,
        /// Seconds of a client that stays to the end, in the mean, by the cost model of a reference
        /// machine; nothing when every session failed. Measured seconds are in `timing`.
        modelled_client_seconds: Option<f64>,
        /// The same of the server: its adding and unmasking, by one thread.
        modelled_server_seconds: Option<f64>,
        /// Modelled seconds of a client while keys are advertised.
        modelled_client_advertise_keys_seconds: Option<f64>,
        /// Modelled seconds of a client while secrets are shared.
        modelled_client_share_keys_seconds: Option<f64>,
        /// Modelled seconds of a client while inputs are masked and added.
        modelled_client_masked_input_seconds: Option<f64>,
        /// Modelled seconds of a client while survivors are signed.
        modelled_client_consistency_seconds: Option<f64>,
        /// Modelled seconds of a client while the sum is unmasked.
        modelled_client_unmask_seconds: Option<f64>,
        /// Modelled seconds of the server while keys are advertised.
        modelled_server_advertise_keys_seconds: Option<f64>,
        /// Modelled seconds of the server while secrets are shared.
        modelled_server_share_keys_seconds: Option<f64>,
        /// Modelled seconds of the server while inputs are masked and added.
        modelled_server_masked_input_seconds: Option<f64>,
        /// Modelled seconds of the server while survivors are signed.
        modelled_server_consistency_seconds: Option<f64>,
        /// Modelled seconds of the server while the sum is unmasked.
        modelled_server_unmask_seconds: Option<f64>,
    }
}

row! {
    /// Wall-clock time; never the same twice, hence apart from the other tables.
    "timing" TimingRow {
        /// `round`, `training` (its part in which clients were trained and summed) or `evaluation`; of
        /// secure aggregation that was really done, also
        /// `secagg-STAGE-client-mean`, `-client-max` and `-server`.
        what: String,
        /// As in `rounds` for a round, as in `evaluation` for an evaluation.
        round: u64,
        /// Wall-clock seconds.
        seconds: f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_read_back_as_the_row() {
        let row = EvaluationRow {
            round: 3,
            test_loss: Some(f64::MIN_POSITIVE),
            test_accuracy: None,
            test_loss_int8: None,
            test_accuracy_int8: Some(0.25),
            train_loss: Some(-0.0),
            train_accuracy: Some(1.0),
            train_clients: u64::MAX,
        };
        assert_eq!(EvaluationRow::from_cells(&row.cells()), Some(row.clone()));
        assert_eq!(EvaluationRow::from_cells(&row.cells()[1..]), None);
        assert_eq!(RoundRow::from_cells(&row.cells()), None);
        assert_eq!(EvaluationRow::COLUMNS.len(), row.cells().len());
    }

    #[test]
    fn bits_decide_equality() {
        let nan = Cell::Real(Some(f64::NAN));
        assert!(nan.same_bits(&nan.clone()));
        assert!(!Cell::Real(Some(0.0)).same_bits(&Cell::Real(Some(-0.0))));
        assert!(!Cell::Real(None).same_bits(&Cell::Real(Some(0.0))));
        assert!(!Cell::Count(0).same_bits(&Cell::Real(Some(0.0))));
    }
}
