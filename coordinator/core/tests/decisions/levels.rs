//! The group's feature level only rises, and marks what was written.

use regent_core::{Body, CodecError, FEATURE_LEVEL, FEATURE_LEVEL_FIRST, Proposal, Rejection, State};

use super::world::World;

#[test]
fn the_level_only_rises() {
    let mut world = World::healthy(&["a", "b"]);
    assert_eq!(world.state.level(), FEATURE_LEVEL_FIRST);
    world.propose(Body::RaiseLevel { level: FEATURE_LEVEL }).unwrap();
    assert_eq!(world.state.level(), FEATURE_LEVEL);
    for level in [0, FEATURE_LEVEL_FIRST, FEATURE_LEVEL] {
        let refused = world.propose(Body::RaiseLevel { level }).unwrap_err();
        assert_eq!(refused, Rejection::LevelReached { level, group: FEATURE_LEVEL });
    }
    let unknown = FEATURE_LEVEL + 1;
    let refused = world.propose(Body::RaiseLevel { level: unknown }).unwrap_err();
    assert_eq!(refused, Rejection::Level { needs: unknown, group: FEATURE_LEVEL });
}

#[test]
fn what_was_written_at_a_level_is_refused_by_a_node_that_knows_less() {
    let mut world = World::healthy(&["a", "b"]);
    let first = world.state.encode();
    assert_eq!(State::decode_up_to(FEATURE_LEVEL_FIRST, &first), Ok(world.state.clone()));
    let raise = world.proposal(Body::RaiseLevel { level: FEATURE_LEVEL });
    let refused = |what| CodecError::Level { what, found: FEATURE_LEVEL, known: FEATURE_LEVEL_FIRST };
    let read = Proposal::decode_up_to(FEATURE_LEVEL_FIRST, &raise.encode());
    assert_eq!(read, Err(refused("log entry")));
    world.propose(raise.body).unwrap();
    let snapshot = world.state.encode();
    assert_eq!(State::decode_up_to(FEATURE_LEVEL_FIRST, &snapshot), Err(refused("snapshot")));
    assert_eq!(State::decode(&snapshot), Ok(world.state));
}
