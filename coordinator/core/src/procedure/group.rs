//! The coordinators, and clusters that come and go: what an operator may ask of the whole group.

use std::collections::BTreeMap;

use regent_types::{CoordinatorId, Region};

use super::Change;
use crate::{
    Coordinator, Group, GroupNews, GroupRecord, GroupRequest, GroupRequestKind, Rejection, Standing, State,
};

/// Changes of the group that are kept.
const RECORDS_KEPT: usize = 200;
/// Request ids remembered.
const REQUESTS_KEPT: usize = 200;
/// Fewer survive no loss.
const VOTERS_MIN: usize = 3;
/// More cost round trips and add nothing.
const VOTERS_MAX: usize = 7;

/// An operator's request.
pub(crate) fn request(
    state: &mut State,
    change: &mut Change,
    request: &GroupRequest,
) -> Result<(), Rejection> {
    if state.group.requests.contains(&request.request_id) {
        return Ok(());
    }
    let text = match &request.kind {
        GroupRequestKind::CreateCluster { config, election_worst_ms, adopt } => {
            super::membership::create(state, change, request, config, *election_worst_ms, *adopt)?;
            format!("cluster {} was created", config.name)
        }
        GroupRequestKind::ForgetCluster { cluster, expected_epoch, primary_silent_ms, consent } => {
            super::membership::forget(
                state,
                change,
                request,
                cluster,
                *expected_epoch,
                *primary_silent_ms,
                *consent,
            )?;
            format!("cluster {cluster} was forgotten")
        }
        GroupRequestKind::ImportCluster { .. } => super::import::request(state, change, request)?,
        GroupRequestKind::AddCoordinator { id, address, region, expected_version, consent } => {
            check_version(&state.group, *expected_version)?;
            add(&mut state.group, *id, address, region, *consent)?
        }
        GroupRequestKind::RemoveCoordinator { id, expected_version, consent } => {
            check_version(&state.group, *expected_version)?;
            remove(&mut state.group, *id, *consent)?
        }
    };
    let group = &mut state.group;
    group.requests.push_back(request.request_id.clone());
    while group.requests.len() > REQUESTS_KEPT {
        group.requests.pop_front();
    }
    record(group, change, &request.actor, &request.reason, text);
    Ok(())
}

fn record(group: &mut Group, change: &Change, actor: &str, reason: &str, text: String) {
    let (wall_ms, actor, reason) = (change.wall_ms, actor.to_owned(), reason.to_owned());
    group.log.push_back(GroupRecord { wall_ms, actor, reason, text });
    while group.log.len() > RECORDS_KEPT {
        group.log.pop_front();
    }
}

fn check_version(group: &Group, expected: u64) -> Result<(), Rejection> {
    if group.coordinators.is_empty() {
        return Err(Rejection::GroupUnknown);
    }
    if group.version == expected {
        return Ok(());
    }
    Err(Rejection::StaleGroup { expected, current: group.version })
}

/// One change at a time: the next one is judged by what the last one made.
fn check_settled(group: &Group) -> Result<(), Rejection> {
    let unsettled = group
        .coordinators
        .iter()
        .find(|(_, one)| matches!(one.standing, Standing::Joining | Standing::Leaving));
    match unsettled {
        Some((id, one)) => Err(Rejection::GroupChanging { id: *id, standing: one.standing }),
        None => Ok(()),
    }
}

fn add(
    group: &mut Group,
    id: CoordinatorId,
    address: &str,
    region: &Region,
    consent: bool,
) -> Result<String, Rejection> {
    if let Some(known) = group.coordinators.get(&id) {
        return Err(Rejection::CoordinatorKnown { id, standing: known.standing });
    }
    check_settled(group)?;
    let alive = |one: &&Coordinator| one.standing != Standing::Removed;
    if let Some((other, _)) = group.coordinators.iter().find(|(_, one)| alive(one) && one.address == address)
    {
        let by = format!("coordinator {other}");
        return Err(Rejection::AddressTaken { address: address.to_owned(), by });
    }
    let mut wanted = group.clone();
    let one =
        Coordinator { address: address.to_owned(), region: region.clone(), standing: Standing::Joining };
    wanted.coordinators.insert(id, one);
    check_voters(&wanted, consent)?;
    wanted.version += 1;
    *group = wanted;
    Ok(format!("coordinator {id} in {region} ({address}) is to join"))
}

fn remove(group: &mut Group, id: CoordinatorId, consent: bool) -> Result<String, Rejection> {
    let Some(known) = group.coordinators.get(&id) else {
        return Err(Rejection::UnknownCoordinator { id });
    };
    // One that never caught up may be given up: it has no vote.
    match known.standing {
        Standing::Removed | Standing::Leaving => {
            return Err(Rejection::CoordinatorKnown { id, standing: known.standing });
        }
        Standing::Voter => check_settled(group)?,
        Standing::Joining => {}
    }
    let mut wanted = group.clone();
    wanted.coordinators.get_mut(&id).expect("found above").standing = Standing::Leaving;
    check_voters(&wanted, consent)?;
    wanted.version += 1;
    *group = wanted;
    Ok(format!("coordinator {id} is to leave"))
}

fn check_voters(wanted: &Group, consent: bool) -> Result<(), Rejection> {
    let voters = wanted.voters_wanted();
    let count = voters.len();
    if !(VOTERS_MIN..=VOTERS_MAX).contains(&count) {
        return Err(Rejection::Voters { count, min: VOTERS_MIN, max: VOTERS_MAX });
    }
    let mut held: BTreeMap<&Region, usize> = BTreeMap::new();
    for one in voters.values() {
        *held.entry(&one.region).or_default() += 1;
    }
    // With an even number half of the votes in one region is enough to stop the group with it.
    match held.into_iter().find(|(_, held)| (count - held) * 2 <= count) {
        Some((region, held)) if !consent => {
            Err(Rejection::RegionMajority { region: region.clone(), held, count })
        }
        _ => Ok(()),
    }
}

/// What the leader's shell found out.
pub(crate) fn news(state: &mut State, change: &mut Change, news: &GroupNews) -> Result<(), Rejection> {
    let group = &mut state.group;
    let text = match news {
        GroupNews::Founded { founders } => {
            if !group.coordinators.is_empty() {
                return Err(Rejection::NotWaiting);
            }
            for (id, address, region) in founders {
                let (address, region) = (address.clone(), region.clone());
                group.coordinators.insert(*id, Coordinator { address, region, standing: Standing::Voter });
            }
            format!("founded by {} coordinators", founders.len())
        }
        GroupNews::Joined { id } => turn(group, *id, Standing::Joining, Standing::Voter, "votes")?,
        GroupNews::Named { id } => {
            if group.id.is_some() {
                return Err(Rejection::NotWaiting);
            }
            group.id = Some(*id);
            format!("the group's id is {id}")
        }
        GroupNews::Left { id } => turn(group, *id, Standing::Leaving, Standing::Removed, "votes no more")?,
    };
    // A name changes nothing that an operator's change could be made from.
    if !matches!(news, GroupNews::Named { .. }) {
        group.version += 1;
    }
    record(group, change, "regent", "", text);
    Ok(())
}

fn turn(
    group: &mut Group,
    id: CoordinatorId,
    from: Standing,
    to: Standing,
    text: &str,
) -> Result<String, Rejection> {
    let one = group.coordinators.get_mut(&id).ok_or(Rejection::UnknownCoordinator { id })?;
    if one.standing != from {
        return Err(Rejection::NotWaiting);
    }
    one.standing = to;
    Ok(format!("coordinator {id} {text}"))
}
