//! Entries and snapshots: what is written is read back, and nothing that is read makes a node panic.

use proptest::prelude::*;
use regent_core::{Body, CodecError, Proposal, State, decode_reply, encode_reply};

use super::world::World;

/// A state with every kind of operation in it, and the proposals that led there.
fn lived() -> (State, Vec<Body>) {
    let mut world = World::healthy(&["a", "b", "c"]);
    let mut bodies = Vec::new();
    super::rules::failover(&mut world, Some("b")).unwrap();
    for name in ["fence", "promote", "embedded", "validate"] {
        let effect = world.effect(name);
        let body = world.answer(&effect).unwrap();
        bodies.push(body.clone());
        world.propose(body).unwrap();
    }
    world.second();
    bodies.push(Body::Configure(Box::new(super::world::config("rides", &["x"]))));
    let detected = world.detector.tick(world.now_ns, &world.state, 3);
    bodies.extend(detected);
    (world.state, bodies)
}

#[test]
fn what_is_written_is_read_back() {
    let (state, bodies) = lived();
    assert_eq!(State::decode(&state.encode()), Ok(state.clone()));
    let world = World::healthy(&["a", "b"]);
    for body in bodies {
        let proposal = world.proposal(body);
        assert_eq!(Proposal::decode(&proposal.encode()), Ok(proposal));
    }
    let mut again = World::healthy(&["a", "b"]);
    for reply in [super::rules::failover(&mut again, None), super::rules::failover(&mut again, None)] {
        assert_eq!(decode_reply(&encode_reply(&reply)), Ok(reply));
    }
}

/// Entries and snapshots as earlier builds wrote them, one a line; files of released levels are never changed.
const LEVEL_1: &str = "tests/decisions/earlier/level1.hex";

/// A field without a default, a renamed field or variant: each would make a log unreadable that is on disks already.
/// `UPDATE_EARLIER=1` writes the file when it is not there.
#[test]
fn what_earlier_builds_wrote_is_read() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(LEVEL_1);
    if std::env::var_os("UPDATE_EARLIER").is_some() && !path.exists() {
        let (state, bodies) = lived();
        let world = World::healthy(&["a", "b"]);
        let mut text = format!("snapshot {}\n", hex(&state.encode()));
        for body in bodies {
            text += &format!("entry {}\n", hex(&world.proposal(body).encode()));
        }
        std::fs::write(&path, text).unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap();
    let mut entries = 0;
    for line in text.lines() {
        let (kind, bytes) = line.split_once(' ').unwrap();
        let bytes = unhex(bytes);
        match kind {
            "snapshot" => {
                let state = State::decode(&bytes).unwrap();
                let cluster = state.clusters.values().next().unwrap();
                assert_eq!((state.level(), cluster.epoch.0), (1, 2));
                assert!(!cluster.finished.is_empty() && !state.events.is_empty());
                // A state that is read is a state that can be written.
                assert_eq!(State::decode(&state.encode()), Ok(state));
            }
            "entry" => {
                Proposal::decode(&bytes).unwrap();
                entries += 1;
            }
            other => panic!("{other}"),
        }
    }
    assert!(entries >= 5, "{entries}");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    text.as_bytes().chunks(2).map(byte).collect()
}

/// A torn entry is damaged, never a shorter one.
#[test]
fn every_torn_entry_is_refused() {
    let (_, bodies) = lived();
    let world = World::healthy(&["a", "b"]);
    for body in bodies {
        let bytes = world.proposal(body).encode();
        for length in 0..bytes.len() {
            assert!(Proposal::decode(&bytes[..length]).is_err(), "{length} of {} bytes", bytes.len());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = (State::decode(&bytes), Proposal::decode(&bytes), decode_reply(&bytes));
        if let Some(first) = bytes.first_mut() {
            *first = 2;
        }
        if let Some(second) = bytes.get_mut(1) {
            *second = 1;
        }
        let _ = (State::decode(&bytes), Proposal::decode(&bytes), decode_reply(&bytes));
    }

    #[test]
    fn a_flipped_byte_never_panics(at in any::<prop::sample::Index>(), with in 1..=255u8) {
        let (state, bodies) = lived();
        let mut bytes = state.encode();
        let at_state = at.index(bytes.len());
        bytes[at_state] ^= with;
        let _ = State::decode(&bytes);
        let world = World::new(Vec::new());
        for body in bodies {
            let mut bytes = world.proposal(body).encode();
            let index = at.index(bytes.len());
            bytes[index] ^= with;
            let read = Proposal::decode(&bytes);
            if index == 0 {
                let is_version = matches!(read, Err(CodecError::Version { .. }));
                prop_assert!(is_version);
            }
            // Whatever it says now, a state refuses or takes it, and lives.
            if let Ok(proposal) = read {
                let _ = state.dry_run(world.leadership, &proposal);
            }
        }
    }
}
