//! The status page: coordinators, then each cluster with its members, and under them whatever needs attention.

use regent_pki::WARN_BEFORE_EXPIRY_DAYS;
use regent_proto::v1::{
    Automation, ClusterStatus, CoordinatorRole, CoordinatorStatus, MemberRole, MemberStatus, OperationState,
    PostgresState, StatusReply, disk_probe::Outcome,
};

use super::{Column, Paint, Table, Tone, ago, bytes, duration, wall};

pub(crate) fn status(reply: &StatusReply, paint: &Paint) -> String {
    let mut text = coordinators(reply, paint);
    for cluster in &reply.clusters {
        text.push('\n');
        text.push_str(&self::cluster(cluster, paint));
    }
    if reply.clusters.is_empty() {
        text.push_str("\nno clusters\n");
    }
    text
}

fn coordinators(reply: &StatusReply, paint: &Paint) -> String {
    let mut table = Table::new(
        0,
        &[
            Column::Right("ID"),
            Column::Left("REGION"),
            Column::Left("ADDRESS"),
            Column::Left("COORDINATOR"),
            Column::Right("TERM"),
            Column::Right("APPLIED"),
            Column::Left("QUORUM ACK"),
            Column::Left("VERSION"),
        ],
    );
    for coordinator in &reply.coordinators {
        table.row(coordinator_row(coordinator));
    }
    let mut text = table.render(paint);
    if reply.leader.is_none() {
        let line = format!("! no leader is known to coordinator {}: this view may be old", reply.answered_by);
        text.push_str(&paint.tone(Tone::Bad, &line));
        text.push('\n');
        let line = "! without a quorum a primary writes on while its standbys promise it: `regent-agent status` on its host says \
                    by whose promise and until when";
        text.push_str(&paint.tone(Tone::Warn, line));
        text.push('\n');
    }
    for coordinator in &reply.coordinators {
        let days = coordinator.certificate_days_left.filter(|days| *days < WARN_BEFORE_EXPIRY_DAYS);
        if let Some(days) = days {
            let line = format!("! the certificate of coordinator {} expires in {days} days", coordinator.id);
            text.push_str(&paint.tone(Tone::Warn, &line));
            text.push('\n');
        }
    }
    if let Some(line) = levels(reply) {
        text.push_str(&paint.tone(Tone::Warn, &line));
        text.push('\n');
    }
    text
}

/// During a rolling upgrade: who keeps the group at its feature level.
fn levels(reply: &StatusReply) -> Option<String> {
    let group = reply.feature_level?;
    let highest = reply.coordinators.iter().filter_map(|c| c.feature_level).max()?;
    let behind: Vec<String> = reply
        .coordinators
        .iter()
        .filter(|c| c.feature_level.is_none_or(|level| level < highest))
        .map(|c| match c.feature_level {
            Some(level) => format!("coordinator {} announces {level}", c.id),
            None => format!("coordinator {} has announced none", c.id),
        })
        .collect();
    let told = (highest > group).then(|| behind.join(", "))?;
    Some(format!("! feature level {group} of {highest}: {told} (see docs/upgrade.md)"))
}

fn coordinator_row(coordinator: &CoordinatorStatus) -> [(String, Option<Tone>); 8] {
    let number = |value: Option<u64>| value.map(|value| value.to_string()).unwrap_or_default();
    let tone = match coordinator.role() {
        CoordinatorRole::Leader => Some(Tone::Good),
        CoordinatorRole::Follower => None,
        _ => Some(Tone::Bad),
    };
    [
        (coordinator.id.to_string(), None),
        (coordinator.region.clone(), None),
        (coordinator.address.clone(), None),
        (coordinator.role().to_string(), tone),
        (number(coordinator.term), None),
        (number(coordinator.applied_index), None),
        (coordinator.quorum_ack_age_ms.map(ago).unwrap_or_default(), None),
        (coordinator.version.clone().unwrap_or_default(), None),
    ]
}

fn cluster(cluster: &ClusterStatus, paint: &Paint) -> String {
    let automation = match cluster.automation() {
        mode @ (Automation::Paused | Automation::Approve | Automation::Observe) => {
            paint.tone(Tone::Warn, &mode.to_string())
        }
        other => other.to_string(),
    };
    let primary = match &cluster.primary {
        Some(name) => format!("primary {name}"),
        None => paint.tone(Tone::Bad, "no primary"),
    };
    let name = paint.tone(Tone::Heading, &format!("CLUSTER {}", cluster.name));
    let mut text = format!(
        "{name}  epoch {} (fenced through {})  {automation}  {primary}\n",
        cluster.epoch, cluster.fenced_through
    );
    if let Some(reason) = cluster.automation_reason.as_deref().filter(|reason| !reason.is_empty()) {
        text.push_str(&format!("  {automation}: {reason}\n"));
    }
    if let Some(restraint) = &cluster.restraint {
        text.push_str(&super::restraint::restraint(restraint, paint));
    }
    if let Some(dns) = &cluster.dns {
        let record = format!("{} -> {} (ttl {}s, epoch {})", dns.name, dns.address, dns.ttl_s, dns.epoch);
        text.push_str(&format!("  dns: {record}\n"));
    }
    if let Some(policy) = &cluster.policy {
        text.push_str(&format!(
            "  fails over: agent silent {}, PostgreSQL down {}, disk stalled {}; lease {}\n",
            duration(policy.partition_timeout_ms),
            duration(policy.postgres_down_timeout_ms),
            duration(policy.disk_stall_timeout_ms),
            duration(policy.lease_ttl_ms),
        ));
    }
    if let Some(synchronous) = &cluster.synchronous {
        let rule = synchronous.logged.last().map_or("nobody", String::as_str);
        let line = format!("  synchronous ({}): {rule}, {}", synchronous.shortage, synchronous.state);
        text.push_str(&if synchronous.proven { line } else { paint.tone(Tone::Warn, &line) });
        text.push('\n');
    }
    for difference in &cluster.file_differs {
        let line = format!("  ! the coordinator's file differs: {difference}");
        text.push_str(&paint.tone(Tone::Warn, &line));
        text.push('\n');
    }
    if let Some(drill) = &cluster.drill {
        let line = format!("  drill: #{}, step {}, for {}", drill.id, drill.step, duration(drill.elapsed_ms));
        text.push_str(&paint.tone(Tone::Warn, &line));
        text.push('\n');
    }
    if let Some(operation) = &cluster.operation {
        let mut line = format!(
            "  running: #{} {} ({}), step {}, for {}",
            operation.id,
            operation.kind(),
            operation.trigger(),
            operation.step,
            duration(operation.elapsed_ms)
        );
        if operation.state() == OperationState::Waiting {
            line.push_str(&format!(
                ", waiting: {}",
                operation.reason.as_deref().unwrap_or("no reason given")
            ));
        }
        text.push_str(&paint.tone(Tone::Warn, &line));
        text.push('\n');
    }
    text.push_str(&planned(cluster, paint));
    text.push('\n');
    text.push_str(&members(cluster, paint));
    text
}

/// What is planned: a scheduled switchover, a failback that waits for approval.
fn planned(cluster: &ClusterStatus, paint: &Paint) -> String {
    let mut text = String::new();
    if let Some(scheduled) = &cluster.scheduled {
        let target = scheduled.target.as_deref().unwrap_or("the best member");
        let mut line = format!(
            "  scheduled: switchover to {target} at {} ({}: {})",
            wall(scheduled.at_wall_ms),
            scheduled.requested_by,
            scheduled.reason
        );
        if let Some(waiting) = &scheduled.waiting {
            line.push_str(&format!(", waiting: {waiting}"));
        }
        text.push_str(&paint.tone(Tone::Warn, &line));
        text.push('\n');
    }
    if let Some(pending) = &cluster.pending_failback {
        let line = format!(
            "  failback to {} ({}) waits for approval since {}: regentctl approve {}",
            pending.target,
            pending.region,
            wall(pending.since_wall_ms),
            cluster.name
        );
        text.push_str(&paint.tone(Tone::Warn, &line));
        text.push('\n');
    }
    text
}

fn members(cluster: &ClusterStatus, paint: &Paint) -> String {
    let mut table = Table::new(
        2,
        &[
            Column::Left("MEMBER"),
            Column::Left("REGION"),
            Column::Left("ROLE"),
            Column::Left("POSTGRES"),
            Column::Right("LEASE"),
            Column::Right("HEARD"),
            Column::Right("LAG"),
            Column::Right("TL"),
            Column::Left("LSN"),
            Column::Left("SYNC"),
        ],
    );
    let mut notes = Vec::new();
    for member in &cluster.members {
        table.row(member_row(member));
        notes.extend(member_notes(member).into_iter().map(|(tone, note)| {
            let line = format!("  ! {}: {note}", member.name);
            paint.tone(tone, &line)
        }));
    }
    let mut text = table.render(paint);
    for note in notes {
        text.push_str(&note);
        text.push('\n');
    }
    text
}

fn member_row(member: &MemberStatus) -> [(String, Option<Tone>); 10] {
    let role_tone = match member.role() {
        MemberRole::Primary => Some(Tone::Good),
        MemberRole::Standby => None,
        _ => Some(Tone::Warn),
    };
    // The mark says: look at the notes below, it does not accept connections.
    let mark = if member.accepting { "" } else { "*" };
    let lag = match (member.lag_bytes, member.lag_ms) {
        (Some(count), Some(ms)) => format!("{}, {}", bytes(count), duration(ms)),
        (Some(count), None) => bytes(count),
        (None, Some(ms)) => duration(ms),
        (None, None) => String::new(),
    };
    let lsn = match member.role() {
        MemberRole::Primary => &member.write_lsn,
        _ => &member.received_lsn,
    };
    let sync = match (member.role(), member.sync_confirmed) {
        (MemberRole::Primary, _) => (String::new(), None),
        (_, true) => ("confirmed".to_owned(), Some(Tone::Good)),
        (_, false) => ("no".to_owned(), Some(Tone::Warn)),
    };
    [
        (member.name.clone(), None),
        (member.region.clone(), None),
        (member.role().to_string(), role_tone),
        (format!("{}{mark}", member.postgres()), (!member.accepting).then_some(Tone::Bad)),
        (member.lease_remaining_ms.map(duration).unwrap_or_default(), None),
        (member.heard_age_ms.map(duration).unwrap_or_else(|| "never".to_owned()), None),
        (lag, None),
        (member.timeline.map(|timeline| timeline.to_string()).unwrap_or_default(), None),
        (lsn.clone().unwrap_or_default(), None),
        sync,
    ]
}

/// What needs attention, with its numbers.
fn member_notes(member: &MemberStatus) -> Vec<(Tone, String)> {
    let mut notes = Vec::new();
    if !member.accepting && member.heard_age_ms.is_some() && member.postgres() != PostgresState::Stopped {
        notes.push((Tone::Bad, format!("PostgreSQL ({}) does not accept connections", member.postgres())));
    }
    if let Some(reason) = &member.guard_refused {
        notes.push((Tone::Bad, format!("no automatic failover: {reason}")));
    }
    match member.disk.as_ref().and_then(|disk| disk.outcome.as_ref()) {
        Some(Outcome::Stalled(stalled)) => {
            notes.push((
                Tone::Bad,
                format!("an fsync in the data directory has hung for {}", duration(stalled.for_ms)),
            ));
        }
        Some(Outcome::Failed(failed)) => {
            notes.push((Tone::Bad, format!("an fsync in the data directory failed: {}", failed.error)));
        }
        Some(Outcome::Ok(_) | Outcome::NotProbed(_)) | None => {}
    }
    // Below a tenth, or unknown size and below 1 GB: worth a look before PostgreSQL stops.
    if let Some(free) = member.free_bytes
        && member.total_bytes.map_or(free < 1 << 30, |total| free < total / 10)
    {
        let retained = member.slot_retained_bytes.map(|count| format!(", {} kept for slots", bytes(count)));
        notes.push((Tone::Warn, format!("{} free on its disk{}", bytes(free), retained.unwrap_or_default())));
    }
    notes.extend(member.alerts.iter().map(|alert| (Tone::Bad, format!("ALERT: {alert}"))));
    if let Some(full_in_s) = member.retention.as_ref().and_then(|retention| retention.full_in_s) {
        let rate = member.retention.as_ref().and_then(|retention| retention.bytes_per_s).unwrap_or(0);
        let note = format!(
            "its disk is full in {} at the present rate of WAL ({}/s)",
            duration(full_in_s.saturating_mul(1000)),
            bytes(rate)
        );
        notes.push((Tone::Warn, note));
    }
    if let Some(promised) = &member.writes_by_promise {
        let note = format!(
            "writes continue by promise of {} until {} ({} left), epoch {}",
            promised.by.join(", "),
            wall(promised.until_wall_ms),
            duration(promised.remaining_ms),
            promised.epoch
        );
        notes.push((Tone::Warn, note));
    }
    if let Some(left_ms) = member.promise_given_remaining_ms {
        let note = format!("has promised not to be promoted for another {}", duration(left_ms));
        notes.push((Tone::Quiet, note));
    }
    if let Some(job) = &member.job {
        let total = job.total_bytes.map(|total| format!(" of {}", bytes(total))).unwrap_or_default();
        let percent = job.percent.map(|percent| format!(" ({percent} %)")).unwrap_or_default();
        notes.push((Tone::Warn, format!("{} {}{total}{percent}", job.kind, bytes(job.done_bytes))));
    }
    if member.role() != MemberRole::Primary
        && !member.sync_confirmed
        && let Some(reason) = &member.sync_reason
    {
        notes.push((Tone::Warn, format!("not in sync: {reason}")));
    }
    if let Some(facts) = &member.parameters {
        if !facts.pending_restart.is_empty() {
            let what = facts.pending_restart.join(", ");
            notes.push((Tone::Warn, format!("restart pending for {what} (regentctl restart --if-pending)")));
        }
        for (name, why) in &facts.refused {
            notes.push((Tone::Bad, format!("it does not take the parameter {name}: {why}")));
        }
    }
    if member.logical_slots_at_risk > 0 {
        let count = member.logical_slots_at_risk;
        let why = match member.postgres_major {
            Some(major) if major < 17 => format!("PostgreSQL {major} cannot keep them in step, 17 can"),
            _ => "needs `logical_slots` in agent.toml, and slots made with failover = true".to_owned(),
        };
        notes.push((Tone::Warn, format!("{count} logical slots would be lost by a failover: {why}")));
    }
    if !member.promotable {
        notes.push((Tone::Quiet, "is never promoted (configuration)".to_owned()));
    }
    notes
}
