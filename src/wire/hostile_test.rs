//! Bytes from outside, whatever they claim: they panic nowhere, and what is allocated for them is bounded by what came, not by
//! what they say will come.

use std::collections::HashMap;

use allocation_counter::measure;
use bytes::Bytes;
use proptest::prelude::*;
use serde::Deserialize;

use super::frame::{batch, control, frame, released};
use crate::id::JobId;
use crate::payload::decode;

/// Each begins as something does that is read here, and many lie about how much there is.
const SEEDS: &[&[u8]] = &[
    b"",
    &[0x96, 1, 9, 8, 1],                                  // an add
    &[0x97, 1, 9, 8, 2, 0xa1, b'a', 7, 1],                // a delete
    &[0x94, 1, 9, 8, 3],                                  // fenced
    &[0xdd, 0xff, 0xff, 0xff, 0xff, 1, 9, 8, 1],          // an array of 4 thousand million fields
    &[0x96, 1, 9, 8, 1, 0xdb, 0xff, 0xff, 0xff, 0xff],    // an id of 4 GiB
    &[0x96, 1, 9, 8, 1, 0xda, 0xff, 0xff],                // an id of 64 KiB
    &[0x94, 1, 9, 1, 0xdd, 0xff, 0xff, 0xff, 0xff],       // 4 thousand million changes
    &[0x94, 1, 9, 1, 0x91, 0xdd, 0xff, 0xff, 0xff, 0xff], // a change of as many fields
    &[0x94, 1, 9, 1, 0x92, 0x93, 1, 2, 0xa1, b'a', 0x93], // two changes
    &[0x93, 1, 0xdb, 0xff, 0xff, 0xff, 0xff],             // what was released: an id of 4 GiB
    &[0xc6, 0xff, 0xff, 0xff, 0xff],                      // 4 GiB of bytes
    &[0xdf, 0xff, 0xff, 0xff, 0xff],                      // a map of 4 thousand million entries
    &[0xc9, 0xff, 0xff, 0xff, 0xff, 1],                   // 4 GiB of an extension
    &[0x91; 100],                                         // nested a hundred times
    &[0x81; 100],
];

/// Begins as a seed does, goes on as it likes; sometimes with one byte changed.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let rest = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..64),
        // Small numbers and short texts, which get further.
        prop::collection::vec(prop_oneof![0u8..10, 0x90u8..0xa4, Just(b'a')], 0..64),
    ];
    let flip = prop::option::of((any::<prop::sample::Index>(), any::<u8>()));
    (prop::sample::select(SEEDS), rest, flip).prop_map(|(seed, rest, flip)| {
        let mut bytes = [seed, &rest].concat();
        if let Some((at, byte)) = flip.filter(|_| !bytes.is_empty()) {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}

#[derive(Deserialize)]
#[allow(dead_code, reason = "only decoded")]
enum Tree {
    Leaf(u64),
    Node(Box<Self>, Box<Self>),
    Text { text: String, more: Vec<Self> },
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4_000) })]

    #[test]
    fn a_message_allocates_no_more_than_came(bytes in bytes()) {
        let used = measure(|| {
            let _ = (frame(&bytes), control(&bytes), released(&bytes));
        });
        prop_assert!(used.bytes_max <= 3 * bytes.len() as u64 + 200, "{used:?} for {} bytes", bytes.len());
        // A change takes three bytes at least, and some 60 when it is read; a list grows by doubling.
        let used = measure(|| drop(batch(&bytes)));
        prop_assert!(used.bytes_max <= 100 * bytes.len() as u64 + 1_000, "{used:?} for {} bytes", bytes.len());
    }

    #[test]
    fn a_payload_allocates_no_more_than_serde_dares_to(bytes in bytes()) {
        let (payload, job) = (Bytes::from(bytes), JobId::new("job").unwrap());
        let used = measure(|| {
            let _ = (decode::<&str>(&payload, &job), decode::<String>(&payload, &job));
            let _ = (decode::<Vec<u8>>(&payload, &job), decode::<Vec<String>>(&payload, &job));
            let _ = (decode::<(String, Vec<(u64, String)>)>(&payload, &job), decode::<Tree>(&payload, &job));
            let _ = decode::<HashMap<String, Option<f64>>>(&payload, &job);
        });
        // serde believes a length up to a mebibyte, for a list; a table of it has room to spare.
        prop_assert!(used.bytes_max <= 4 << 20, "{used:?}");
    }
}
