//! `GetParameters` and `SetParameters`. Decides nothing: the core judges a change, the members' agents judge the values.

use std::collections::BTreeMap;

use regent_core::{Cluster, Parameters, RequestKind};
use regent_proto::v1;
use regent_types::{MemberName, ParameterFacts, STANDBY_NEEDS};
use tonic::{Response, Status};

use super::{
    auth::{self, Caller},
    judge::Common,
    operator::{Answered, Operators, RELAY_TIMEOUT, Way, cluster_name},
    policy::unknown,
};
use crate::shared::Inner;

/// A member that was not heard for so many heartbeat intervals says nothing of its parameters.
const HEARD_INTERVALS: u64 = 30;

impl Operators {
    pub(super) async fn parameters(
        &self,
        caller: Caller,
        message: v1::ParametersRequest,
    ) -> Answered<v1::ParametersReply> {
        let name = cluster_name(&message.cluster)?;
        if let Ok(Way::There(mut client)) = self.way(&caller) {
            let request = auth::on_behalf(message.clone(), &caller.actor())?;
            if let Some(answer) = self.leaders_answer(client.get_parameters(request)).await {
                return answer;
            }
        }
        let inner = self.node.shared.lock();
        let cluster = inner.state.clusters.get(&name).ok_or_else(|| unknown(&name))?;
        let now_ns = self.node.clock.now_ns();
        let members = cluster.config.members.keys().map(|member| v1::MemberParameters {
            member: member.to_string(),
            primary: cluster.appointment.as_ref().is_some_and(|appointment| appointment.member == *member),
            facts: heard(&inner, now_ns, cluster, member).cloned().map(Into::into),
        });
        Ok(Response::new(v1::ParametersReply {
            cluster: name.to_string(),
            epoch: cluster.epoch.0,
            version: cluster.parameters.version,
            members: members.collect(),
            values: cluster.parameters.values.clone(),
        }))
    }

    pub(super) async fn change_parameters(
        &self,
        caller: Caller,
        message: v1::SetParametersRequest,
    ) -> Answered<v1::SetParametersReply> {
        if let Way::There(mut client) = self.way(&caller)? {
            let request = auth::on_behalf(message, &caller.actor())?;
            return self.in_time(RELAY_TIMEOUT, client.set_parameters(request)).await;
        }
        if message.set.is_empty() && message.unset.is_empty() {
            return Err(Status::invalid_argument("set, unset: both are empty"));
        }
        let common = Common {
            cluster: &message.cluster,
            reason: &message.reason,
            expected_epoch: message.expected_epoch,
            request_id: &message.request_id,
            dry_run: message.dry_run,
        };
        let kind = RequestKind::SetParameters {
            set: message.set.clone(),
            unset: message.unset.iter().cloned().collect(),
        };
        let request = self.request(&caller, &common, kind)?;
        let name = request.cluster.clone();
        let before = self.known(&name, |known| known.parameters.clone())?;
        let applied = self.ask(request, message.dry_run).await?;
        let taken = !applied.events.is_empty();
        let changes = if taken { changes(&before, &message) } else { Vec::new() };
        let ordered = message.set.keys().chain(&message.unset);
        let ordered: Vec<&str> =
            ordered.map(String::as_str).filter(|name| STANDBY_NEEDS.contains(name)).collect();
        let mut notes = Vec::new();
        if !ordered.is_empty() {
            notes.push(format!(
                "{}: takes restarts; a standby needs as much as its primary: `regentctl restart {name} --if-pending` keeps the order",
                ordered.join(", ")
            ));
        }
        let version = match message.dry_run {
            true => before.version + u64::from(taken),
            false => self.known(&name, |known| known.parameters.version)?,
        };
        Ok(Response::new(v1::SetParametersReply {
            changes,
            version,
            epoch: applied.epoch.0,
            dry_run: message.dry_run,
            notes,
        }))
    }

    /// Standbys that are heard and run with less than the files say of what they need as high as their primary, or have not
    /// read the files yet.
    pub(super) fn behind(&self, cluster: &str) -> Result<BTreeMap<MemberName, Vec<String>>, Status> {
        let name = cluster_name(cluster)?;
        let inner = self.node.shared.lock();
        let cluster = inner.state.clusters.get(&name).ok_or_else(|| unknown(&name))?;
        let now_ns = self.node.clock.now_ns();
        let ordered: Vec<String> = cluster
            .parameters
            .values
            .keys()
            .filter(|name| STANDBY_NEEDS.contains(&name.as_str()))
            .cloned()
            .collect();
        let one = |member: &MemberName| {
            let facts = heard(&inner, now_ns, cluster, member)?;
            let unread = facts.version != cluster.parameters.version && !ordered.is_empty();
            let behind = if unread { ordered.clone() } else { facts.raise_first.clone() };
            (!behind.is_empty()).then(|| (member.clone(), behind))
        };
        Ok(cluster.config.members.keys().filter_map(one).collect())
    }
}

fn heard<'i>(
    inner: &'i Inner,
    now_ns: u64,
    cluster: &Cluster,
    member: &MemberName,
) -> Option<&'i ParameterFacts> {
    let (heartbeat, age_ms) = inner.detector.last_report(now_ns, &cluster.config.name, member)?;
    let limit_ms = cluster.config.policy.heartbeat_interval_ms.saturating_mul(HEARD_INTERVALS);
    (age_ms <= limit_ms).then_some(&heartbeat.report.parameters)
}

fn changes(before: &Parameters, message: &v1::SetParametersRequest) -> Vec<String> {
    let old = |name: &str| match before.values.get(name) {
        Some(value) => format!("{value:?}"),
        None => "not set".to_owned(),
    };
    let set = message.set.iter().filter(|(name, value)| before.values.get(*name) != Some(*value));
    let set = set.map(|(name, value)| format!("{name} {} -> {value:?}", old(name)));
    set.chain(message.unset.iter().map(|name| format!("{name} {} -> not set", old(name)))).collect()
}
