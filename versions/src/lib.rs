//! Model versions on a device: how a new one comes as a patch of the one that is there, and how it
//! is installed so that whatever happens, a whole version can be loaded.
//!
//! A version is bytes, and its name is their [`Digest`]. Nothing here knows what a model is.
//!
//! - [`Patch`] leads from one version to another. Where a model's weights have moved by little, it
//!   is a small part of the whole file. A device applies it with little memory beside the old
//!   version; what comes out has the digest that was announced, or it is an error.
//! - [`Store`] keeps the version that is used and the one before it. A download may stop at any byte
//!   and go on later; a version is named current only when all of it is on the disk and its digest
//!   is right; power may fail at any moment.
//! - [`Disk`] is the few things that are asked of a file system, so that tests can break each of
//!   them, and a device without one can bring its flash memory. Only [`LocalDisk`] touches files.
//!
//! ```
//! # #[cfg(feature = "make")] {
//! use fl_versions::{Patch, Region, Version};
//!
//! let old: Vec<u8> = (0..10_000).map(|i| (i * 7 % 251) as u8).collect();
//! let new: Vec<u8> = old.iter().enumerate().map(|(i, &b)| b.wrapping_add((i % 40 == 0).into())).collect();
//! let patch = Patch::make(&old, &new, &[Region::bytes(0..10_000, 0..10_000)])?;
//! assert!(patch.len() < 500);
//!
//! let patch = Patch::open(&patch)?;
//! let mut out = Vec::new();
//! patch.apply(&old, &mut out)?;
//! assert_eq!(Version::of(&out), patch.new_version());
//! # }
//! # Ok::<(), fl_versions::PatchError>(())
//! ```
#![forbid(unsafe_code)]

mod digest;
mod disk;
pub mod patch;
pub mod store;

pub use digest::{Digest, NoDigest, Version};
pub use disk::{Disk, DiskFile, LocalDisk};
pub use patch::{Patch, PatchError, Region, Width};
pub use store::{Check, Download, Loaded, Store, StoreError};
