//! Attacks, each with the error that meets it. A server is played by hand where it lies: with the
//! crate's own writer, so that every lie is well formed and has a good checksum.

mod clients;
mod keys;
mod survivors;

use std::collections::BTreeMap;
use std::sync::Arc;

use chacha20::ChaCha20Rng;
use rand_core::SeedableRng;

use super::{Setup, sent};
use crate::shamir::Share;
use crate::wire::{
    Advert, Kind, Reader, Revealed, SERVER, Secret, Writer, bit_map, read_packets, read_roster,
    read_shares, write_packets, write_roster, write_shares,
};
use crate::{
    BadShare, Client, ClientError, Cohort, DecodeError, Directory, Fault, Identity, Input,
    InputError, OneThread, Params, Reply, Ring, Server, SessionError, Suite, Threat, Topology,
};

const THREATS: [Threat; 3] = [Threat::SemiHonest, Threat::SemiMalicious, Threat::Active];

/// A client that failed stays so, has wiped its state and says nothing more.
#[track_caller]
fn is_wiped(client: &mut Client, message: &[u8]) {
    assert!(client.is_over());
    assert_eq!(client.handle(message), Err(ClientError::Over));
}

impl Setup {
    fn read<'a>(&self, kind: Kind, message: &'a [u8], sender: u32) -> Reader<'a> {
        Reader::open(
            message,
            kind,
            &self.params,
            &self.server().session(),
            sender,
        )
        .unwrap()
    }

    fn writer(&self, kind: Kind, sender: u32) -> Writer {
        Writer::new(kind, &self.params, &self.server().session(), sender)
    }

    /// A survivors' message of the server's choice.
    fn survivors(&self, set: &[u32]) -> Vec<u8> {
        let mut writer = self.writer(Kind::Survivors, SERVER);
        writer.raw(&bit_map(self.params.clients(), set.iter().copied()));
        writer.finish()
    }

    fn adverts(&self) -> BTreeMap<u32, Advert> {
        let (_, messages) = self.clients();
        (0..)
            .zip(&messages)
            .map(|(id, message)| {
                let reader = self.read(Kind::AdvertiseKeys, message, id);
                (id, Advert::decode(&self.params, reader).unwrap())
            })
            .collect()
    }

    /// A roster of the server's choice.
    fn roster(&self, adverts: &BTreeMap<u32, Advert>) -> Vec<u8> {
        let session = self.server().session();
        write_roster(
            &self.params,
            &session,
            adverts.iter().map(|(id, advert)| (*id, *advert)),
        )
    }

    fn revealed(&self, id: u32, message: &[u8]) -> Vec<Revealed> {
        let reader = self.read(Kind::UnmaskingShares, message, id);
        read_shares(&self.params, reader).unwrap()
    }
}
