//! The guards of a planned change of primary: what must be true before anything is touched. Each has a name, and each that
//! says no is named with its values, all of them at once. Judges the leader's last reports only; what matters for the
//! promises is judged again later from proofs (`candidate.rs`). A mistake here falls on *refused*.

use regent_types::{DataForm, MemberName, Region};

use crate::{Cluster, MemberFacts, Readiness, Rejection, SyncState};

/// Whom a planned change of primary may lead to.
pub(crate) enum Wanted<'a> {
    /// The best member.
    Any,
    /// This one.
    Member(&'a MemberName),
    /// The best one of this region.
    In(&'a Region),
    /// The best one of all others.
    Outside(&'a Region),
}

/// The target, or every guard that says no.
pub(crate) fn target(
    cluster: &Cluster,
    readiness: &Readiness,
    wanted: &Wanted<'_>,
) -> Result<MemberName, Rejection> {
    let (appointment, _) = cluster.established().ok_or(Rejection::NoPrimary)?;
    let primary = &appointment.member;
    let mut guards = self::primary(cluster, readiness);
    let members = cluster.config.members.iter().filter(|(name, config)| match wanted {
        Wanted::Any => *name != primary,
        Wanted::Member(wanted) => name == wanted,
        Wanted::In(region) => config.region == **region,
        Wanted::Outside(region) => config.region != **region,
    });
    let mut able = Vec::new();
    let mut refusals = Vec::new();
    for (name, config) in members {
        let refused = standby(cluster, readiness, name);
        if refused.is_empty() {
            let lsn = readiness.of(name).and_then(|facts| facts.lsn);
            able.push((lsn, config.priority, std::cmp::Reverse(name)));
        }
        refusals.extend(refused);
    }
    match able.into_iter().max() {
        Some((_, _, std::cmp::Reverse(name))) if guards.is_empty() => Ok(name.clone()),
        Some(_) => Err(Rejection::GuardsSayNo { guards }),
        None => {
            guards.extend(refusals);
            if guards.is_empty() {
                guards.push("guard target: there is no other member to switch over to".to_owned());
            }
            Err(Rejection::GuardsSayNo { guards })
        }
    }
}

fn say(guard: &str, member: &MemberName, reason: &str) -> String {
    format!("guard {guard} ({member}): {reason}")
}

fn heard<'r>(readiness: &'r Readiness, member: &MemberName) -> Result<&'r MemberFacts, String> {
    match readiness.of(member) {
        None => Err(say("heard", member, "the leader has never heard it")),
        Some(facts) if facts.age_ms > facts.fresh_ms => {
            let (age_ms, fresh_ms) = (facts.age_ms, facts.fresh_ms);
            Err(say(
                "heard",
                member,
                &format!("last heard {age_ms} ms ago, at most {fresh_ms} ms are allowed"),
            ))
        }
        Some(facts) => Ok(facts),
    }
}

fn guarded(facts: &MemberFacts) -> Option<String> {
    if !facts.guard_reachable {
        return Some(say("guard", &facts.member, "its agent does not reach its guard"));
    }
    let refused = facts.guard_refused.as_ref()?;
    Some(say("guard", &facts.member, &format!("it refuses automatic failover: {refused}")))
}

fn primary(cluster: &Cluster, readiness: &Readiness) -> Vec<String> {
    let Some(appointment) = &cluster.appointment else { return Vec::new() };
    let facts = match heard(readiness, &appointment.member) {
        Ok(facts) => facts,
        Err(no) => return vec![no],
    };
    let mut no: Vec<String> = guarded(facts).into_iter().collect();
    if facts.instance != appointment.instance {
        let (bound, found) = (appointment.instance, facts.instance);
        let reason = format!("the epoch is bound to instance {bound}, {found} is heard");
        no.push(say("instance", &facts.member, &reason));
    }
    if !facts.accepting {
        no.push(say("accepting", &facts.member, "the primary accepts no connections"));
    }
    no
}

fn standby(cluster: &Cluster, readiness: &Readiness, member: &MemberName) -> Vec<String> {
    let appointment = cluster.appointment.as_ref();
    if let Some(appointment) = appointment.filter(|appointment| appointment.member == *member) {
        return vec![say("target", member, &format!("it is the primary (epoch {})", appointment.epoch))];
    }
    let mut no = Vec::new();
    if !cluster.config.members.get(member).is_some_and(|config| config.promotable) {
        no.push(say("promotable", member, "not promotable by configuration"));
    }
    let newest = cluster.history.last().map(|record| record.epoch);
    match cluster.sync.get(member) {
        Some(SyncState::Confirmed { epoch }) if Some(*epoch) == newest => {}
        Some(SyncState::Confirmed { epoch }) => {
            let now = newest.unwrap_or_default();
            no.push(say("in-sync", member, &format!("confirmed for epoch {epoch}, the primary's is {now}")));
        }
        Some(SyncState::Unconfirmed { why }) => no.push(say("in-sync", member, why)),
        None => no.push(say("in-sync", member, "never in sync")),
    }
    let facts = match heard(readiness, member) {
        Ok(facts) => facts,
        Err(silent) => {
            no.push(silent);
            return no;
        }
    };
    no.extend(guarded(facts));
    if facts.form != DataForm::Standby {
        no.push(say("standby", member, &format!("its data directory is {:?}", facts.form)));
    } else if !facts.streaming {
        no.push(say("streaming", member, "it does not stream from the primary now"));
    }
    no.extend(lag(cluster, readiness, facts));
    no
}

fn lag(cluster: &Cluster, readiness: &Readiness, facts: &MemberFacts) -> Option<String> {
    let policy = &cluster.config.policy;
    let max =
        policy.max_lag_bytes.map_or(policy.sync_lag_bytes_max, |max| max.min(policy.sync_lag_bytes_max));
    let primary = cluster.appointment.as_ref().and_then(|appointment| readiness.of(&appointment.member));
    match (primary.and_then(|primary| primary.lsn), facts.lsn) {
        (Some(written), Some(received)) => {
            let lag = written.bytes_since(received);
            let reason = format!("{lag} bytes behind, {max} are allowed");
            (lag > max).then(|| say("lag", &facts.member, &reason))
        }
        (written, received) => {
            let reason = format!("the positions are not known (primary {written:?}, standby {received:?})");
            Some(say("lag", &facts.member, &reason))
        }
    }
}
