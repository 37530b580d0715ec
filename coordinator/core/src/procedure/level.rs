//! The group's feature level: it only rises.

use crate::{FEATURE_LEVEL, Rejection, State};

/// Every member of the group understands `level`.
pub(crate) fn raise(state: &mut State, level: u8) -> Result<(), Rejection> {
    let group = state.level();
    if level <= group {
        return Err(Rejection::LevelReached { level, group });
    }
    if level > FEATURE_LEVEL {
        // Its entry is marked with the level, so no honest one gets here.
        return Err(Rejection::Level { needs: level, group });
    }
    state.feature_level = level;
    Ok(())
}

/// Refuses what not every member of the group understands.
pub(crate) fn check(state: &State, needs: u8) -> Result<(), Rejection> {
    let group = state.level();
    if needs <= group { Ok(()) } else { Err(Rejection::Level { needs, group }) }
}
