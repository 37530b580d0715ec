//! Promises between members (DESIGN section 6): when a primary asks, whom, and when a promise is given.
//!
//! The guard enforces both sides by itself; here is decided what it is asked for. Invariants:
//! - the lease is extended only when *everybody* on the list has promised, by a list that came with the lease's own epoch;
//! - the extension counts from the sending of the first request of its round;
//! - nothing is promised to an epoch that is known to be fenced, or to be followed by another.
//!
//! Every doubt is a refusal, and then the lease runs out as usual: the mistake is an outage, never a second writer.

use regent_types::{
    ClusterName, ClusterView, Epoch, LeaseTerms, MemberName, PromiseFacts, PromiseView,
    mutant::{Mutant, is_on},
};
use serde::{Deserialize, Serialize};

/// The list of who may be promoted, with the epoch of the view that it came in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromiseList {
    /// The view's epoch.
    pub epoch: Epoch,
    /// The list.
    pub view: PromiseView,
}

impl PromiseList {
    /// The list of a view.
    pub fn of(view: &ClusterView) -> Option<Self> {
        view.promises.clone().map(|promises| Self { epoch: view.epoch, view: promises })
    }

    /// Whether `heard` is to take this one's place. One that was overtaken on its way must not: members that it lacks may
    /// be promotable by now.
    pub fn gives_way_to(&self, heard: &Self) -> bool {
        (heard.epoch, heard.view.version) >= (self.epoch, self.view.version) && heard != self
    }
}

/// What the primary's side depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder<'a> {
    /// This member.
    pub member: &'a MemberName,
    /// CLOCK_BOOTTIME, ns.
    pub now_ns: u64,
    /// Epoch and deadline of the live lease.
    pub lease: Option<(Epoch, u64)>,
    /// When a leader answered last, CLOCK_BOOTTIME ns: a refusal is an answer too.
    pub answered_ns: Option<u64>,
    /// Between two heartbeats, ms.
    pub heartbeat_interval_ms: u64,
    /// A promiser has said that this epoch has ended.
    pub ended: Option<Epoch>,
    /// The list on disk.
    pub list: Option<&'a PromiseList>,
}

/// Whether to ask for promises now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asking {
    /// No, and there is no need to.
    No,
    /// No, though the lease will run out, and why.
    Cannot(String),
    /// All of these, now.
    Ask {
        /// The lease's epoch.
        epoch: Epoch,
        /// Name and address of each.
        members: Vec<(MemberName, String)>,
        /// What each is asked for.
        terms: LeaseTerms,
    },
}

/// Silence of the coordinators counts after this many heartbeat intervals.
const SILENT_INTERVALS: u64 = 2;

/// Decides whether a primary asks now. It asks when no leader answers any more and the lease has less than three quarters of a
/// promise left: asked earlier, a promise would extend nothing; later, one lost answer would end the lease.
pub fn asking(holder: &Holder<'_>) -> Asking {
    let Some((epoch, deadline_ns)) = holder.lease else { return Asking::No };
    let Some(list) = holder.list else {
        return Asking::Cannot("who may be promoted is not known here".into());
    };
    let duration_ns = list.view.terms.ttl_ms.saturating_mul(1_000_000);
    let silent_ns = holder.heartbeat_interval_ms.saturating_mul(SILENT_INTERVALS * 1_000_000);
    let answered = holder.answered_ns.is_some_and(|at_ns| holder.now_ns.saturating_sub(at_ns) < silent_ns);
    if duration_ns == 0 || answered || deadline_ns.saturating_sub(holder.now_ns) > duration_ns / 4 * 3 {
        return Asking::No;
    }
    if list.epoch != epoch {
        return Asking::Cannot(format!(
            "the list of who may be promoted came with epoch {}, the lease is of epoch {epoch}",
            list.epoch
        ));
    }
    if holder.ended == Some(epoch) {
        return Asking::Cannot(format!("epoch {epoch} has ended, as a promiser has heard"));
    }
    let others = || list.view.promotable.iter().filter(|one| one.member != *holder.member);
    if others().next().is_none() {
        return Asking::Cannot("nobody else may be promoted, so nobody can promise".into());
    }
    let mut members = Vec::new();
    for one in others() {
        match &one.agent_address {
            Some(address) => members.push((one.member.clone(), address.clone())),
            None => {
                return Asking::Cannot(format!("{} has no agent_address and cannot be asked", one.member));
            }
        }
    }
    Asking::Ask { epoch, members, terms: list.view.terms }
}

/// The deadline that a round of promises gives: counted from before its first request was sent, so it can only be early.
pub fn promised_deadline_ns(sent_ns: u64, terms: LeaseTerms) -> u64 {
    sent_ns.saturating_add(terms.ttl_ms.saturating_mul(1_000_000))
}

/// What is to be said of promises to people, one line each; `at` puts a wall time to what is left, ms.
pub fn words(facts: &PromiseFacts, at: impl Fn(u64) -> String) -> Vec<String> {
    let left = |ms: u64| format!("until {} ({}.{} s left)", at(ms), ms / 1000, ms % 1000 / 100);
    let extended = facts.extended.iter().map(|one| {
        let by: Vec<&str> = one.by.iter().map(MemberName::as_str).collect();
        format!(
            "writes continue by promise of {} {}, epoch {}",
            by.join(", "),
            left(one.remaining_ms),
            one.epoch
        )
    });
    let given = facts.given.iter().map(|given| match given.epoch {
        Some(epoch) => format!("has promised to take no epoch above {epoch} {}", left(given.remaining_ms)),
        None => format!(
            "may have promised, to an epoch that is not known any more, not to be promoted {}",
            left(given.remaining_ms)
        ),
    });
    extended.chain(given).collect()
}

/// A request for a promise, as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The cluster named.
    pub cluster: ClusterName,
    /// The primary that asks.
    pub member: MemberName,
    /// Its epoch.
    pub epoch: Epoch,
    /// Whom it means to ask.
    pub promiser: MemberName,
    /// For how long, and by which margins.
    pub terms: LeaseTerms,
}

/// What the promiser's side depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promiser<'a> {
    /// Its cluster.
    pub cluster: &'a ClusterName,
    /// Itself.
    pub member: &'a MemberName,
    /// Who the caller's certificate says it is; `None` in plain text.
    pub caller: Option<&'a MemberName>,
    /// The cluster as last heard from a coordinator.
    pub view: Option<&'a ClusterView>,
    /// A leader's last answer was that it does not know this cluster or member.
    pub unknown: bool,
    /// The highest epoch that any local file knows.
    pub seen: Epoch,
    /// The guard's mark.
    pub fenced_through: Epoch,
    /// The guard's mark.
    pub promises_closed: Epoch,
}

/// Why nothing is promised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// In words, with both sides' values.
    pub reason: String,
    /// The epoch has ended: asking again is of no use.
    pub epoch_ended: bool,
}

/// For how long the guard is to hold the promise, ms, or why there is none. The guard judges again, against its disk.
pub fn promise(request: &Request, promiser: &Promiser<'_>) -> Result<u64, Refusal> {
    let no = |reason: String| Err(Refusal { reason, epoch_ended: false });
    let ended = |reason: String| Err(Refusal { reason, epoch_ended: true });
    let epoch = request.epoch;
    if request.cluster != *promiser.cluster || request.promiser != *promiser.member {
        return no(format!(
            "this is {} of cluster {}, asked was {} of {}",
            promiser.member, promiser.cluster, request.promiser, request.cluster
        ));
    }
    if let Some(caller) = promiser.caller.filter(|caller| **caller != request.member) {
        return no(format!("{caller} asks in the name of {}", request.member));
    }
    // Interleaving: the cluster was forgotten and its name is used again, while its primary hears no coordinator; what it is
    // promised now would outlast every bound that anybody waits for.
    if promiser.unknown {
        return no(format!(
            "the coordinators do not know {} of cluster {}",
            promiser.member, promiser.cluster
        ));
    }
    if let Some(view) = promiser.view.filter(|view| !view.members.contains(&request.member)) {
        return no(format!(
            "{} is no member of cluster {}, by list {}",
            request.member, promiser.cluster, view.members_version
        ));
    }
    if request.terms.ttl_ms == 0 {
        return no("a promise of 0 ms is none".into());
    }
    let heard = promiser.view.map_or(Epoch::NONE, |view| view.fenced_through);
    let fenced = heard.max(promiser.fenced_through).max(promiser.promises_closed);
    if fenced >= epoch {
        return ended(format!("epoch {epoch} is being fenced (fenced or closed through {fenced})"));
    }
    let seen = promiser.seen.max(promiser.view.map_or(Epoch::NONE, |view| view.epoch));
    if seen > epoch {
        return ended(format!("epoch {seen} has been heard of, epoch {epoch} asks"));
    }
    let primary = promiser.view.filter(|view| view.epoch == epoch).and_then(|view| view.primary.as_ref());
    if let Some(primary) = primary.filter(|primary| primary.member != request.member) {
        return no(format!("epoch {epoch} belongs to {}, {} asks", primary.member, request.member));
    }
    // The larger margins of both: a change of policy may have reached one side only.
    let own = promiser.view.and_then(|view| view.promises.as_ref()).map(|promises| promises.terms);
    let terms = LeaseTerms {
        ttl_ms: request.terms.ttl_ms,
        rho_ppm: request.terms.rho_ppm.max(own.map_or(0, |own| own.rho_ppm)),
        kill_ms: request.terms.kill_ms.max(own.map_or(0, |own| own.kill_ms)),
    };
    if is_on(Mutant::PromiseWithoutMargin) {
        return Ok(terms.ttl_ms);
    }
    Ok(terms.bound_ns().div_ceil(1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use regent_types::{PrimaryView, PromotableMember, Region};

    const TERMS: LeaseTerms = LeaseTerms { ttl_ms: 8_000, rho_ppm: 5_000, kill_ms: 1_000 };
    const S: u64 = 1_000_000_000;

    fn name(name: &str) -> MemberName {
        MemberName::new(name).unwrap()
    }

    fn list(epoch: u64, version: u64, members: &[(&str, Option<&str>)]) -> PromiseList {
        let promotable = members
            .iter()
            .map(|(member, address)| PromotableMember {
                member: name(member),
                agent_address: address.map(str::to_owned),
            })
            .collect();
        PromiseList { epoch: Epoch(epoch), view: PromiseView { version, promotable, terms: TERMS } }
    }

    fn cannot(holder: &Holder<'_>, part: &str) {
        match asking(holder) {
            Asking::Cannot(why) => assert!(why.contains(part), "{why}"),
            other => panic!("{other:?}, expected {part}"),
        }
    }

    #[test]
    fn a_primary_asks_all_others_when_no_coordinator_grants_and_the_lease_runs_low() {
        let a = name("a");
        let all = list(4, 1, &[("a", Some("a:1")), ("b", Some("b:1")), ("c", Some("c:1"))]);
        let holder = Holder {
            member: &a,
            now_ns: 100 * S,
            lease: Some((Epoch(4), 105 * S)),
            answered_ns: Some(90 * S),
            heartbeat_interval_ms: 1_000,
            ended: None,
            list: Some(&all),
        };
        let members = vec![(name("b"), "b:1".to_owned()), (name("c"), "c:1".to_owned())];
        assert_eq!(asking(&holder), Asking::Ask { epoch: Epoch(4), members, terms: TERMS });
        // Granted a moment ago; enough left; no lease; promises off.
        assert_eq!(asking(&Holder { answered_ns: Some(99 * S), ..holder.clone() }), Asking::No);
        assert_eq!(asking(&Holder { lease: Some((Epoch(4), 107 * S)), ..holder.clone() }), Asking::No);
        assert_eq!(asking(&Holder { lease: None, ..holder.clone() }), Asking::No);
        let mut off = all.clone();
        off.view.terms.ttl_ms = 0;
        assert_eq!(asking(&Holder { list: Some(&off), ..holder.clone() }), Asking::No);
        // What makes it impossible.
        cannot(&Holder { list: None, ..holder.clone() }, "not known");
        cannot(&Holder { ended: Some(Epoch(4)), ..holder.clone() }, "epoch 4 has ended");
        let old = list(3, 9, &[("b", Some("b:1"))]);
        cannot(&Holder { list: Some(&old), ..holder.clone() }, "came with epoch 3, the lease is of epoch 4");
        let alone = list(4, 1, &[("a", Some("a:1"))]);
        cannot(&Holder { list: Some(&alone), ..holder.clone() }, "nobody else");
        let nowhere = list(4, 1, &[("b", Some("b:1")), ("c", None)]);
        cannot(&Holder { list: Some(&nowhere), ..holder.clone() }, "c has no agent_address");
    }

    #[test]
    fn people_are_told_by_whom_and_until_when() {
        use regent_types::{GivenPromise, PromisedLease};
        let at = |ms: u64| format!("t+{ms}");
        let extended =
            PromisedLease { epoch: Epoch(4), by: vec![name("b"), name("c")], remaining_ms: 41_250 };
        let facts = PromiseFacts { extended: Some(extended), ..Default::default() };
        let said = "writes continue by promise of b, c until t+41250 (41.2 s left), epoch 4";
        assert_eq!(words(&facts, at), [said]);
        let given = |epoch| PromiseFacts {
            given: Some(GivenPromise { epoch, remaining_ms: 900 }),
            ..Default::default()
        };
        assert_eq!(
            words(&given(Some(Epoch(4))), at),
            ["has promised to take no epoch above 4 until t+900 (0.9 s left)"]
        );
        assert!(words(&given(None), at)[0].starts_with("may have promised"), "{:?}", words(&given(None), at));
        assert!(words(&PromiseFacts::default(), at).is_empty());
    }

    #[test]
    fn an_overtaken_list_does_not_come_back() {
        let (old, new) = (list(4, 1, &[("b", None)]), list(4, 2, &[("b", None), ("c", None)]));
        assert!(old.gives_way_to(&new) && !new.gives_way_to(&old) && !new.gives_way_to(&new));
        assert!(new.gives_way_to(&list(5, 1, &[("b", None)])));
        assert!(old.gives_way_to(&list(4, 1, &[("b", Some("b:2"))])), "an address has changed");
    }

    #[test]
    fn every_refusal_names_both_sides_and_says_whether_the_epoch_has_ended() {
        let (cluster, b) = (ClusterName::new("gravl").unwrap(), name("b"));
        let request = Request {
            cluster: cluster.clone(),
            member: name("a"),
            epoch: Epoch(4),
            promiser: b.clone(),
            terms: TERMS,
        };
        let view = ClusterView {
            epoch: Epoch(4),
            fenced_through: Epoch(3),
            primary: Some(PrimaryView {
                member: name("a"),
                region: Region::new("r").unwrap(),
                epoch: Epoch(4),
                host: "h".into(),
                port: 1,
                established: true,
            }),
            members: vec![name("a"), name("b"), name("c")],
            members_version: 0,
            heartbeat_interval_ms: None,
            promises: None,
            parameters: None,
            supersedes: vec![],
            synchronous: None,
        };
        let c = name("c");
        let good = Promiser {
            cluster: &cluster,
            member: &b,
            caller: Some(&request.member),
            view: Some(&view),
            unknown: false,
            seen: Epoch(4),
            fenced_through: Epoch(3),
            promises_closed: Epoch(3),
        };
        // 8 s * 1.005 / 0.995 + 1 s
        assert_eq!(promise(&request, &good), Ok(9_081));
        let fenced = ClusterView { fenced_through: Epoch(4), ..view.clone() };
        let without = ClusterView { members: vec![name("b")], members_version: 3, ..view.clone() };
        let newer = ClusterView { epoch: Epoch(5), primary: None, ..view.clone() };
        let wider =
            PromiseView { version: 1, promotable: vec![], terms: LeaseTerms { kill_ms: 5_000, ..TERMS } };
        let wider = ClusterView { promises: Some(wider), ..view.clone() };
        assert_eq!(promise(&request, &Promiser { view: Some(&wider), ..good.clone() }), Ok(13_081));
        for (promiser, ended, part) in [
            (Promiser { view: Some(&fenced), ..good.clone() }, true, "through 4"),
            (Promiser { promises_closed: Epoch(4), ..good.clone() }, true, "closed through 4"),
            (Promiser { seen: Epoch(6), ..good.clone() }, true, "epoch 6 has been heard of, epoch 4 asks"),
            (Promiser { view: Some(&newer), ..good.clone() }, true, "epoch 5"),
            (Promiser { unknown: true, ..good.clone() }, false, "do not know b of cluster gravl"),
            (
                Promiser { view: Some(&without), ..good.clone() },
                false,
                "a is no member of cluster gravl, by list 3",
            ),
            (Promiser { caller: Some(&c), ..good.clone() }, false, "c asks in the name of a"),
            (Promiser { member: &c, ..good.clone() }, false, "this is c of cluster gravl, asked was b"),
        ] {
            let refusal = promise(&request, &promiser).unwrap_err();
            assert!(refusal.reason.contains(part) && refusal.epoch_ended == ended, "{refusal:?}");
        }
        let other = Request { member: c.clone(), ..request };
        let refusal = promise(&other, &Promiser { caller: Some(&c), ..good }).unwrap_err();
        assert!(refusal.reason.contains("epoch 4 belongs to a, c asks"), "{refusal:?}");
    }
}
