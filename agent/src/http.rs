//! `/primary`, `/replica`, `/health` and `/metrics`. Decides nothing: a load balancer that asks gets what the guard and the
//! server said last, and a *no* when that is too old to be relied upon.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use regent_types::{PostgresState, Report};

use crate::{app::App, observer};

/// The routes.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/primary", get(primary))
        .route("/replica", get(replica))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .with_state(app)
}

/// Figures older than this are not relied upon, ms.
const FRESH_MS: u64 = 5_000;
const GUARD_LIMIT: Duration = Duration::from_millis(500);

/// Only while this member holds the lease and PostgreSQL accepts writes.
fn is_primary(report: &Report) -> bool {
    report.guard.lease_remaining_ms.is_some()
        && report.postgres.state == PostgresState::Primary
        && report.postgres.accepting
        && report.wal.write_lsn.is_some()
        && report.wal.sample_age_ms <= FRESH_MS
}

fn is_replica(report: &Report) -> bool {
    report.postgres.state == PostgresState::Standby
        && report.postgres.accepting
        && report.wal.streaming
        && report.wal.sample_age_ms <= FRESH_MS
}

fn answer(app: &App, ok: bool, report: &Report) -> impl IntoResponse + use<> {
    let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = serde_json::json!({
        "cluster": app.config.cluster,
        "member": app.config.member,
        "region": app.config.region,
        "report": report,
        "coordinators": {
            "silent_ms": app.promises.silent_ms(),
            "why_not_extended": app.promises.why_not(),
        },
    });
    (status, Json(body))
}

async fn primary(State(app): State<Arc<App>>) -> impl IntoResponse {
    // DNS health checks and load balancers follow this answer: a *yes* comes from the guard now, not from the last look.
    let asked = tokio::time::timeout(GUARD_LIMIT, observer::look_at_guard(&app)).await;
    let said = asked.is_ok() && app.observed().guard_error.is_none();
    let report = app.report();
    answer(&app, said && is_primary(&report), &report)
}

async fn replica(State(app): State<Arc<App>>) -> impl IntoResponse {
    let report = app.report();
    answer(&app, is_replica(&report), &report)
}

async fn health(State(app): State<Arc<App>>) -> impl IntoResponse {
    let report = app.report();
    answer(&app, report.guard.reachable, &report)
}

async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    let text = app.counters.render(&app.report(), app.certificates.state());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}
