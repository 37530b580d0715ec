//! `/metrics` and `/health` over HTTP. Read-only.

use std::sync::Arc;

use axum::{Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use regent_core::Step;
use tokio::net::TcpListener;

use crate::{metrics::Text, node::Node};

/// Serves until the node ends.
pub async fn serve(node: Arc<Node>, listener: TcpListener) {
    let stop = node.stop.clone();
    let router = Router::new().route("/metrics", get(metrics)).route("/health", get(health)).with_state(node);
    let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await;
    if let Err(error) = served {
        tracing::error!(%error, "the HTTP server has ended");
    }
}

/// 200 while a leader is known and this node's log runs.
async fn health(State(node): State<Arc<Node>>) -> impl IntoResponse {
    let status = node.raft.status();
    let (code, text) = match (&status.stopped, status.leader) {
        (Some(reason), _) => (StatusCode::SERVICE_UNAVAILABLE, format!("stopped: {reason}\n")),
        (None, None) => (StatusCode::SERVICE_UNAVAILABLE, "no leader is known\n".to_owned()),
        (None, Some(leader)) => {
            (StatusCode::OK, format!("{} leader={leader} term={}\n", status.role, status.term))
        }
    };
    (code, text)
}

async fn metrics(State(node): State<Arc<Node>>) -> impl IntoResponse {
    ([("content-type", "text/plain; version=0.0.4")], render(&node))
}

fn render(node: &Node) -> String {
    let status = node.raft.status();
    let m = &node.metrics;
    let mut text = Text::default();
    text.one("regent_leader", "gauge", "1 while this node leads.", u8::from(node.led.borrow().is_some()));
    text.one("regent_has_leader", "gauge", "1 while a leader is known.", u8::from(status.leader.is_some()));
    text.one("regent_raft_term", "gauge", "Raft term.", status.term);
    text.one(
        "regent_raft_committed_index",
        "gauge",
        "Committed log index.",
        status.committed_index.unwrap_or(0),
    );
    text.one(
        "regent_raft_applied_index",
        "gauge",
        "Applied log index.",
        status.applied.map_or(0, |at| at.index),
    );
    if let Some(age_ms) = status.quorum_ack_age_ms {
        let help = "Age of the last message that a quorum acknowledged, on the leader.";
        text.one("regent_raft_quorum_ack_age_seconds", "gauge", help, age_ms as f64 / 1000.0);
    }
    text.one("regent_heartbeats_total", "counter", "Heartbeats received while leading.", m.heartbeats.get());
    text.one("regent_leases_granted_total", "counter", "Leases granted or extended.", m.leases_granted.get());
    text.one(
        "regent_rounds_total",
        "counter",
        "Quorum rounds that confirmed the leadership.",
        m.rounds.get(),
    );
    text.one("regent_rounds_failed_total", "counter", "Quorum rounds that failed.", m.rounds_failed.get());
    text.one("regent_sessions", "gauge", "Agent sessions on the leader.", node.sessions.count());
    text.one("regent_relays_total", "counter", "Sessions relayed to a leader.", m.relays.get());
    text.one("regent_dns_queries_total", "counter", "DNS questions answered.", m.dns_queries.get());
    text.one(
        "regent_dns_stale_total",
        "counter",
        "DNS questions answered without a leader.",
        m.dns_stale.get(),
    );
    let help = "Failed attempts of a DNS provider.";
    text.one("regent_redirect_failures_total", "counter", help, m.redirect_failures.get());
    let providers = m.dns_providers.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
    let help = "1 when the DNS provider's last answer to this node was good: an attempt, or a look every five minutes.";
    text.head("regent_dns_provider_ok", "gauge", help);
    for (provider, attempts) in &providers {
        text.sample("regent_dns_provider_ok", &[("provider", provider)], u8::from(attempts.ok));
    }
    text.head(
        "regent_dns_provider_failures_total",
        "counter",
        "Failed attempts and looks of a DNS provider.",
    );
    for (provider, attempts) in &providers {
        text.sample("regent_dns_provider_failures_total", &[("provider", provider)], attempts.failures);
    }
    if let Some(live) = &node.tls {
        let left_s = live.current().not_after().unix_timestamp() - node.clock.wall_ms() as i64 / 1000;
        let help = "Until this node's certificate expires.";
        text.one("regent_certificate_expires_seconds", "gauge", help, left_s);
        let help = "1 while newer certificate files are refused.";
        text.one("regent_certificate_refused", "gauge", help, u8::from(live.complaint().is_some()));
        let help = "New certificate files that were refused.";
        text.one("regent_certificates_refused_total", "counter", help, m.certificates_refused.get());
    }
    let help = "Runs of external fencing drivers.";
    text.one("regent_fencing_driver_runs_total", "counter", help, m.fencing_runs.get());
    let help = "Runs of external fencing drivers that proved nothing.";
    text.one("regent_fencing_driver_failures_total", "counter", help, m.fencing_failures.get());
    text.one("regent_veto_runs_total", "counter", "Runs of the veto hook.", m.vetoes_asked.get());
    text.one("regent_vetoes_total", "counter", "Objections to an automatic failover.", m.vetoes.get());
    text.one("regent_veto_failures_total", "counter", "Veto hooks that failed.", m.vetoes_failed.get());
    text.one("regent_event_hook_told_total", "counter", "Events taken by the hook.", m.events_told.get());
    text.one("regent_event_hook_failures_total", "counter", "Failed event hooks.", m.events_failed.get());
    let help = "Events that the hook never took.";
    text.one("regent_event_hook_given_up_total", "counter", help, m.events_given_up.get());
    let help = "From a heartbeat's arrival to its acknowledgement.";
    text.histogram("regent_acknowledgement_seconds", help, &m.acknowledgement_ms);
    clusters(node, &mut text);
    text.finish()
}

fn clusters(node: &Node, text: &mut Text) {
    let inner = node.shared.lock();
    let now_ns = node.clock.now_ns();
    let all = || inner.state.clusters.iter();
    text.head("regent_cluster_epoch", "gauge", "Current epoch.");
    for (name, cluster) in all() {
        text.sample("regent_cluster_epoch", &[("cluster", name.as_str())], cluster.epoch);
    }
    text.head("regent_cluster_fenced_through", "gauge", "Every epoch up to this one is fenced.");
    for (name, cluster) in all() {
        text.sample("regent_cluster_fenced_through", &[("cluster", name.as_str())], cluster.fenced_through);
    }
    text.head("regent_operation_running", "gauge", "1 while an operation runs.");
    for (name, cluster) in all() {
        let step = cluster.operation.as_ref().map_or(Step::Done, |operation| operation.step);
        let labels = [("cluster", name.as_str()), ("step", crate::service::view::step_name(step))];
        text.sample("regent_operation_running", &labels, u8::from(cluster.operation.is_some()));
    }
    text.head("regent_operation_waiting", "gauge", "1 while the running operation waits for somebody.");
    for (name, cluster) in all() {
        let waits = cluster.operation.as_ref().is_some_and(|operation| operation.waiting.is_some());
        text.sample("regent_operation_waiting", &[("cluster", name.as_str())], u8::from(waits));
    }
    let help = "Standbys that a commit waits for by the newest logged rule.";
    text.head("regent_synchronous_standbys", "gauge", help);
    for (name, cluster) in all() {
        let number = cluster.synchronous.wanted().map_or(0, |set| set.number);
        text.sample("regent_synchronous_standbys", &[("cluster", name.as_str())], number);
    }
    let help = "1 while a failover that the synchronous rule allows is proven to lose no acknowledged write.";
    text.head("regent_synchronous_proven", "gauge", help);
    for (name, cluster) in all() {
        let proven = u8::from(cluster.synchronous.is_proven());
        text.sample("regent_synchronous_proven", &[("cluster", name.as_str())], proven);
    }
    text.head("regent_automation", "gauge", "1 for the mode of automation that is in force.");
    for (name, cluster) in all() {
        let labels = [("cluster", name.as_str()), ("mode", cluster.automation.name())];
        text.sample("regent_automation", &labels, 1);
    }
    let help = "1 while a failover waits for an operator (approval, or acknowledgement of the last one).";
    text.head("regent_failover_pending", "gauge", help);
    for (name, cluster) in all() {
        text.sample(
            "regent_failover_pending",
            &[("cluster", name.as_str())],
            u8::from(cluster.pending.is_some()),
        );
    }
    let help = "Failovers that Regent would have begun in a cluster that it only observes.";
    text.head("regent_would_fail_over_total", "counter", help);
    for (name, cluster) in all() {
        let Some(seen) = &cluster.observed else { continue };
        text.sample("regent_would_fail_over_total", &[("cluster", name.as_str())], seen.count);
    }
    let help = "What is left, by this node's count, of the cooldown after an automatic failover.";
    text.head("regent_cooldown_remaining_seconds", "gauge", help);
    for (name, cluster) in all() {
        let left_ms = inner.cooldowns.remaining_ms(now_ns, cluster).unwrap_or(0);
        text.sample("regent_cooldown_remaining_seconds", &[("cluster", name.as_str())], left_ms as f64 / 1e3);
    }
    text.head("regent_effects_waiting", "gauge", "Effects without an outcome.");
    for (name, cluster) in all() {
        text.sample("regent_effects_waiting", &[("cluster", name.as_str())], cluster.effects().len());
    }
    text.head("regent_alert", "gauge", "1 while something about a member needs an operator's eye.");
    for (name, cluster) in all() {
        for alert in &cluster.alerts {
            let labels =
                [("cluster", name.as_str()), ("member", alert.member.as_str()), ("kind", alert.kind.name())];
            text.sample("regent_alert", &labels, 1);
        }
    }
    if inner.leadership.is_none() {
        return;
    }
    text.head(
        "regent_lease_remaining_seconds",
        "gauge",
        "What is left of the last lease that this leader granted.",
    );
    for (name, cluster) in all() {
        let left_ns = inner.leases.held(now_ns, cluster).unwrap_or(0);
        text.sample("regent_lease_remaining_seconds", &[("cluster", name.as_str())], left_ns as f64 / 1e9);
    }
    let help = "Silences of a member's agent at least as long as the threshold, as counted by this coordinator while it led.";
    text.head("regent_member_silences_total", "counter", help);
    for (name, cluster) in all() {
        for member in cluster.config.members.keys() {
            let Some(counts) = inner.detector.gaps().of(name, member) else { continue };
            for (threshold_ms, reached) in regent_core::GAP_THRESHOLDS_MS.iter().zip(&counts.reached) {
                let threshold = (*threshold_ms as f64 / 1000.0).to_string();
                let labels = [
                    ("cluster", name.as_str()),
                    ("member", member.as_str()),
                    ("at_least_seconds", &threshold),
                ];
                text.sample("regent_member_silences_total", &labels, reached);
            }
        }
    }
    text.head("regent_member_silence_seconds", "gauge", "How long nobody has heard the member's agent.");
    for (name, cluster) in all() {
        for member in cluster.config.members.keys() {
            let silent_ms = inner.detector.silence_ms(now_ns, name, member);
            let labels = [("cluster", name.as_str()), ("member", member.as_str())];
            text.sample("regent_member_silence_seconds", &labels, silent_ms as f64 / 1000.0);
        }
    }
}
