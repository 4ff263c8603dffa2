//! What a session costs in processor time, computed: how often each party does each operation of the
//! protocol, times what one of them costs on some machine.
//!
//! The counts follow from [`Params`] and from how many clients were there at each stage ([`Counts`]);
//! a test compares them with what real sessions do. The prices are [`UnitCosts`]: those of a
//! reference machine ([`CostModel::reference`]) or of this one ([`UnitCosts::measure`], with the
//! caller's clock). All is arithmetic of IEEE doubles in a fixed order, so that modelled seconds are
//! the same everywhere.
//!
//! Left out are what does not grow with anything (the session id), what the caller does (encoding of
//! updates, transport), waiting, and the effect of vectors too long for the caches.
//!
//! ```
//! use fl_secagg::{Cohort, CostModel, Counts, Params, Ring, Suite, Threat, Topology};
//!
//! let cohort = Cohort::new(1000, 0.2, 0.1)?;
//! let ring = Ring::bounded(1000, 1, 16)?;
//! let params = |topology| {
//!     Params::new(cohort, Threat::SemiHonest, topology, Suite::Aes128, ring, 1_000_000)
//! };
//! let seconds = |params: &Params| CostModel::reference().server(params, &Counts::expected(params));
//! let (complete, harary) = (params(Topology::Complete)?, params(Topology::Harary)?);
//! assert!(seconds(&complete).unmask > 5.0 * seconds(&harary).unmask);
//! # Ok::<(), fl_secagg::ParamsError>(())
//! ```

mod measure;

use serde::{Deserialize, Serialize};

use crate::operation::{OPERATIONS, Operation};
use crate::packet::PACKET_BYTES;
use crate::params::{Params, Suite, Threat, Topology};
use crate::shamir::{LIMBS, SHARE_BYTES};
use crate::wire::{FRAME_BYTES, SIGNATURE_BYTES, advert_bytes};

/// What single operations cost, in seconds of one processor.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnitCosts {
    /// A public key from a secret one: fixed-base multiplication in ristretto255, encoding.
    pub public_key: f64,
    /// Decoding a public key.
    pub decode_key: f64,
    /// A key agreement: multiplication and encoding.
    pub agree: f64,
    /// A derived key (HKDF-SHA256) or a commitment.
    pub derive: f64,
    /// An Ed25519 signature.
    pub sign: f64,
    /// The strict check of a signature.
    pub verify: f64,
    /// Sealing a packet of two shares, AES-128-GCM.
    pub seal_aes128: f64,
    /// The same, ChaCha20-Poly1305.
    pub seal_chacha20: f64,
    /// Opening a packet, AES-128-GCM.
    pub open_aes128: f64,
    /// The same, ChaCha20-Poly1305.
    pub open_chacha20: f64,
    /// A byte hashed with SHA-256.
    pub hash_byte: f64,
    /// A step of sharing a secret: per limb, holder and threshold. A secret has five limbs.
    pub split_step: f64,
    /// A step of the Lagrange weights of `t` holders, who need `t * t`.
    pub weight_step: f64,
    /// A limb of a share times its weight.
    pub combine_step: f64,
    /// A coordinate of a mask, expanded and added: AES-128, words of 32 bits.
    pub mask_aes128_narrow: f64,
    /// The same, words of 64 bits.
    pub mask_aes128_wide: f64,
    /// The same, ChaCha20, words of 32 bits.
    pub mask_chacha20_narrow: f64,
    /// The same, words of 64 bits.
    pub mask_chacha20_wide: f64,
    /// A coordinate packed into its bits.
    pub pack: f64,
    /// A coordinate unpacked and added to a sum.
    pub unpack: f64,
    /// A coordinate of an input brought into words, or of a sum out of them.
    pub convert: f64,
    /// An item of a list of clients or packets: read, written or looked up.
    pub entry: f64,
}

/// Unit costs that no machine has.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CostError {
    /// A price that is negative, infinite or not a number.
    #[error("the unit cost `{name}` is {seconds} s; expected a finite number of at least 0")]
    Seconds {
        /// The field of [`UnitCosts`].
        name: &'static str,
        /// As given.
        seconds: f64,
    },
}

/// Prices of operations, checked; gives the seconds of whole sessions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "UnitCosts", into = "UnitCosts")]
pub struct CostModel(UnitCosts);

impl TryFrom<UnitCosts> for CostModel {
    type Error = CostError;

    fn try_from(units: UnitCosts) -> Result<Self, CostError> {
        Self::from_measured(units)
    }
}

impl From<CostModel> for UnitCosts {
    fn from(model: CostModel) -> Self {
        model.0
    }
}

/// How many clients were there at each stage of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Clients that advertised keys.
    pub present: u32,
    /// Clients that shared them.
    pub sharing: u32,
    /// Clients whose masked input arrived.
    pub survivors: u32,
    /// Clients that signed the survivors; counts under [`Threat::Active`] only.
    pub signing: u32,
    /// Clients that answered the request to unmask.
    pub revealing: u32,
}

impl Counts {
    /// A session that nobody leaves.
    #[must_use]
    pub fn everybody(params: &Params) -> Self {
        Self::all(params.clients())
    }

    /// A session in which as many clients as may drop out do so after they shared their keys, which is
    /// the most costly moment for the server.
    #[must_use]
    pub fn expected(params: &Params) -> Self {
        let cohort = params.cohort();
        Self {
            present: cohort.clients(),
            sharing: cohort.clients(),
            ..Self::all(cohort.clients() - cohort.dropouts())
        }
    }

    fn all(clients: u32) -> Self {
        Self {
            present: clients,
            sharing: clients,
            survivors: clients,
            signing: clients,
            revealing: clients,
        }
    }
}

/// Seconds of processor time by stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StageSeconds {
    /// Making keys; receiving them and making the roster.
    pub advertise: f64,
    /// Key agreement and sharing of secrets; passing packets on.
    pub share: f64,
    /// Opening packets and masking the input; adding masked inputs.
    pub mask: f64,
    /// Signing the survivors; checking it. 0 but under [`Threat::Active`].
    pub consistency: f64,
    /// Revealing shares; recovering secrets and taking the masks off the sum.
    pub unmask: f64,
}

impl StageSeconds {
    /// All stages.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.advertise + self.share + self.mask + self.consistency + self.unmask
    }
}

/// How often a party does each operation in a stage.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Operations(pub(crate) [f64; OPERATIONS]);

impl Operations {
    fn with(mut self, operation: Operation, times: f64) -> Self {
        self.0[operation as usize] += times;
        self
    }

    /// All of it, so many times.
    fn times(mut self, times: f64) -> Self {
        for count in &mut self.0 {
            *count *= times;
        }
        self
    }
}

/// The operations of a party in the stages: advertise, share, mask, consistency, unmask.
pub(crate) type ByStage = [Operations; 5];

/// Mean numbers of a session, as the counts of operations need them.
struct Shape {
    clients: f64,
    degree: f64,
    threshold: f64,
    length: f64,
    /// 1 where a client holds a share of its own secrets.
    own: f64,
    /// 1 under the active threat.
    active: f64,
    /// 1 where there is a ring to be put in order.
    ring: f64,
    advert: f64,
    present: f64,
    sharing: f64,
    survivors: f64,
    signing: f64,
    revealing: f64,
    /// Of a client: neighbours that advertised, that shared, that survived.
    neighbours: f64,
    sharing_neighbours: f64,
    surviving_neighbours: f64,
    packed: f64,
    map: f64,
}

const FRAME: f64 = FRAME_BYTES as f64;

/// Bytes of a message that is a list.
fn list(items: f64, bytes: usize) -> f64 {
    FRAME + 4.0 + items * (4.0 + bytes as f64)
}

impl Shape {
    fn new(params: &Params, counts: &Counts) -> Self {
        let clients = f64::from(params.clients());
        let degree = f64::from(params.degree());
        // Of a client that belongs to `count` clients: neighbours that do, in the mean.
        let among = |count: u32| degree * (f64::from(count) - 1.0).max(0.0) / (clients - 1.0);
        let one = |yes: bool| if yes { 1.0 } else { 0.0 };
        Self {
            clients,
            degree,
            threshold: f64::from(params.threshold()),
            length: params.masked_length() as f64,
            own: one(params.topology() == Topology::Complete),
            active: one(params.threat() == Threat::Active),
            ring: one(params.topology() == Topology::Harary),
            advert: advert_bytes(params) as f64,
            present: f64::from(counts.present),
            sharing: f64::from(counts.sharing),
            survivors: f64::from(counts.survivors),
            signing: f64::from(counts.signing),
            revealing: f64::from(counts.revealing),
            neighbours: among(counts.present),
            sharing_neighbours: among(counts.sharing),
            // Of a client that dropped out.
            surviving_neighbours: degree * f64::from(counts.survivors) / (clients - 1.0),
            packed: params.ring().packed_bytes(params.masked_length()) as f64,
            map: f64::from(params.clients().div_ceil(8)),
        }
    }

    fn roster_bytes(&self) -> f64 {
        FRAME + 4.0 + self.present * (4.0 + self.advert)
    }

    fn signatures_bytes(&self) -> f64 {
        self.map + list(self.signing, SIGNATURE_BYTES)
    }

    fn shares(&self) -> f64 {
        self.sharing_neighbours + self.own
    }

    /// A client that stays to the end, in the mean.
    fn client(&self) -> ByStage {
        use Operation as O;
        let none = Operations::default();
        let advertise = none
            .with(O::PublicKey, 2.0)
            .with(O::Derive, 1.0)
            .with(O::Sign, self.active)
            .with(O::Hash, FRAME + self.advert);
        let holders = self.neighbours + self.own;
        let share = none
            // The roster: its checksum and its digest.
            .with(O::Hash, 2.0 * self.roster_bytes())
            .with(O::Entry, 4.0 * self.present + self.ring * self.clients)
            .with(O::Entry, self.degree + self.neighbours)
            .with(O::Verify, self.active * self.neighbours)
            .with(O::DecodeKey, 2.0 * self.neighbours)
            .with(O::Agree, self.neighbours)
            .with(O::Split, 2.0 * LIMBS as f64 * holders * self.threshold)
            .with(O::Derive, self.neighbours)
            .with(O::Seal, self.neighbours)
            .with(O::Hash, list(self.neighbours, PACKET_BYTES));
        let peers = self.sharing_neighbours;
        let mask = none
            .with(O::Hash, list(peers, PACKET_BYTES))
            .with(O::Entry, peers)
            .with(O::Open, peers)
            .with(O::Agree, peers)
            .with(O::Derive, 1.0 + 2.0 * peers)
            .with(O::Convert, self.length)
            .with(O::Mask, (1.0 + peers) * self.length)
            .with(O::Pack, self.length)
            .with(O::Hash, FRAME + self.packed);
        let survivors = none.with(O::Hash, FRAME + self.map);
        let reveal = none
            .with(O::Entry, self.shares())
            .with(O::Hash, list(self.shares(), 1 + SHARE_BYTES));
        let (consistency, unmask) = if self.active > 0.0 {
            (
                survivors
                    .with(O::Sign, 1.0)
                    .with(O::Hash, FRAME + SIGNATURE_BYTES as f64),
                reveal
                    .with(O::Hash, self.signatures_bytes())
                    .with(O::Entry, self.signing)
                    .with(O::Verify, self.signing),
            )
        } else {
            (none, reveal.with(O::Hash, FRAME + self.map))
        };
        [advertise, share, mask, consistency, unmask]
    }

    fn server(&self) -> ByStage {
        use Operation as O;
        let none = Operations::default();
        let advertise = none
            .with(O::Hash, FRAME + self.advert)
            .with(O::DecodeKey, 2.0)
            .with(O::Verify, self.active)
            .with(O::Entry, 3.0)
            .times(self.present)
            .with(O::Entry, self.present + self.ring * self.clients)
            .with(O::Hash, 2.0 * self.roster_bytes());
        let share = none
            .with(O::Hash, list(self.neighbours, PACKET_BYTES))
            .with(O::Entry, self.neighbours + self.degree)
            // Who is lonely, and passing on.
            .with(O::Entry, self.degree + self.sharing_neighbours)
            .with(O::Hash, list(self.sharing_neighbours, PACKET_BYTES))
            .times(self.sharing);
        let mask = none
            .with(O::Hash, FRAME + self.packed)
            .with(O::Unpack, self.length)
            .times(self.survivors)
            .with(O::Hash, FRAME + self.map);
        let consistency = none
            .with(O::Hash, FRAME + SIGNATURE_BYTES as f64)
            .with(O::Verify, 1.0)
            .times(self.signing)
            .with(O::Entry, self.signing)
            .with(O::Hash, self.signatures_bytes())
            .times(self.active);
        let dropped = (self.sharing - self.survivors).max(0.0);
        let owners = self.survivors + dropped;
        let pairs = dropped * self.surviving_neighbours;
        // One set of holders serves all in a complete graph; otherwise each owner has its own.
        let sets = if self.own > 0.0 { 1.0 } else { owners };
        let limbs = LIMBS as f64;
        let unmask = none
            .with(O::Hash, list(self.shares(), 1 + SHARE_BYTES))
            // Read, compared with what was asked for, sorted by owner.
            .with(O::Entry, 2.0 * self.shares() + self.degree)
            .times(self.revealing)
            .with(O::Entry, 2.0 * dropped * self.degree)
            .with(O::Weight, sets * self.threshold * self.threshold)
            .with(O::Combine, owners * limbs * self.threshold)
            .with(O::Derive, 2.0 * self.survivors + pairs)
            .with(O::PublicKey, dropped)
            .with(O::DecodeKey, pairs)
            .with(O::Agree, pairs)
            .with(O::Mask, (self.survivors + pairs) * self.length)
            .with(O::Convert, self.length);
        [advertise, share, mask, consistency, unmask]
    }
}

impl CostModel {
    /// The prices of one core of an Intel Xeon of the fourth or fifth generation (Sapphire or
    /// Emerald Rapids, 2.3 GHz, a virtual machine, built for baseline x86-64 with AVX2, VAES and SHA
    /// found at run time), as [`UnitCosts::measure`] gave them in November 2026, medians of seven
    /// runs. Measure again for results about another class of machine, a telephone above all, and
    /// whenever a cipher, the curve or the sharing is replaced.
    #[must_use]
    pub const fn reference() -> Self {
        Self(UnitCosts {
            public_key: 1.70e-5,
            decode_key: 4.99e-6,
            agree: 4.24e-5,
            derive: 6.60e-7,
            sign: 1.79e-5,
            verify: 4.79e-5,
            seal_aes128: 5.10e-7,
            seal_chacha20: 1.93e-6,
            open_aes128: 4.80e-7,
            open_chacha20: 1.88e-6,
            hash_byte: 6.97e-10,
            split_step: 7.06e-9,
            weight_step: 6.49e-9,
            combine_step: 3.59e-9,
            mask_aes128_narrow: 5.64e-10,
            mask_aes128_wide: 1.13e-9,
            mask_chacha20_narrow: 2.39e-9,
            mask_chacha20_wide: 4.77e-9,
            pack: 1.48e-9,
            unpack: 2.39e-9,
            convert: 1.20e-9,
            entry: 1.98e-8,
        })
    }

    /// Prices of another machine.
    ///
    /// # Errors
    /// [`CostError::Seconds`].
    pub fn from_measured(units: UnitCosts) -> Result<Self, CostError> {
        for (name, seconds) in units.named() {
            if !seconds.is_finite() || seconds < 0.0 {
                return Err(CostError::Seconds { name, seconds });
            }
        }
        Ok(Self(units))
    }

    /// The prices.
    #[must_use]
    pub fn units(&self) -> &UnitCosts {
        &self.0
    }

    /// Seconds of a client that stays to the end: of the mean client, where neighbours differ.
    #[must_use]
    pub fn client(&self, params: &Params, counts: &Counts) -> StageSeconds {
        self.price(params, &Shape::new(params, counts).client())
    }

    /// Seconds of the server, all its threads together.
    #[must_use]
    pub fn server(&self, params: &Params, counts: &Counts) -> StageSeconds {
        self.price(params, &Shape::new(params, counts).server())
    }

    fn price(&self, params: &Params, stages: &ByStage) -> StageSeconds {
        let prices = self.0.prices(params);
        let [advertise, share, mask, consistency, unmask] = stages.map(|stage| {
            let products = stage.0.iter().zip(&prices);
            products.fold(0.0, |sum, (count, price)| sum + count * price)
        });
        StageSeconds {
            advertise,
            share,
            mask,
            consistency,
            unmask,
        }
    }
}

impl UnitCosts {
    /// By operation, for the session's suite and width of words.
    fn prices(&self, params: &Params) -> [f64; OPERATIONS] {
        let narrow = params.ring().bits() <= 32;
        let (seal, open, mask) = match (params.suite(), narrow) {
            (Suite::Aes128, true) => (self.seal_aes128, self.open_aes128, self.mask_aes128_narrow),
            (Suite::Aes128, false) => (self.seal_aes128, self.open_aes128, self.mask_aes128_wide),
            (Suite::ChaCha20, true) => (
                self.seal_chacha20,
                self.open_chacha20,
                self.mask_chacha20_narrow,
            ),
            (Suite::ChaCha20, false) => (
                self.seal_chacha20,
                self.open_chacha20,
                self.mask_chacha20_wide,
            ),
        };
        // In the order of `Operation`.
        [
            self.public_key,
            self.decode_key,
            self.agree,
            self.derive,
            self.sign,
            self.verify,
            seal,
            open,
            self.hash_byte,
            self.split_step,
            self.weight_step,
            self.combine_step,
            mask,
            self.pack,
            self.unpack,
            self.convert,
            self.entry,
        ]
    }

    /// Every price with its name.
    fn named(&self) -> [(&'static str, f64); 22] {
        [
            ("public_key", self.public_key),
            ("decode_key", self.decode_key),
            ("agree", self.agree),
            ("derive", self.derive),
            ("sign", self.sign),
            ("verify", self.verify),
            ("seal_aes128", self.seal_aes128),
            ("seal_chacha20", self.seal_chacha20),
            ("open_aes128", self.open_aes128),
            ("open_chacha20", self.open_chacha20),
            ("hash_byte", self.hash_byte),
            ("split_step", self.split_step),
            ("weight_step", self.weight_step),
            ("combine_step", self.combine_step),
            ("mask_aes128_narrow", self.mask_aes128_narrow),
            ("mask_aes128_wide", self.mask_aes128_wide),
            ("mask_chacha20_narrow", self.mask_chacha20_narrow),
            ("mask_chacha20_wide", self.mask_chacha20_wide),
            ("pack", self.pack),
            ("unpack", self.unpack),
            ("convert", self.convert),
            ("entry", self.entry),
        ]
    }
}

#[cfg(test)]
mod tests;
