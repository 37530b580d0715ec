//! Beside another tool: a primary and a standby that an administrator runs are observed only. What Regent would have done is
//! said, counted and filed; nothing is touched.

use std::time::Duration;

use anyhow::{Result, ensure};
use regent_chaos::real::deployment::{
    CLUSTER, Deployment, DeploymentOptions, EAST, MEMBERS, NORTH, Status, WITNESS,
};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);

fn observed(status: &Status) -> &Value {
    &status.json()["clusters"][0]["restraint"]["observed"]
}

async fn in_recovery(deployment: &Deployment, member: &str) -> Result<bool> {
    let session = deployment.pg(member).await?;
    Ok(session.client().query_one("SELECT pg_is_in_recovery()", &[]).await?.get(0))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_of_another_tool_are_only_observed() -> Result<()> {
    let deployment = Deployment::prepare(DeploymentOptions::new("observe").automation("observe"))?;
    deployment.make_servers_by_hand()?;
    deployment.start_coordinators()?;
    deployment.wait_leader().await?;
    for member in MEMBERS {
        deployment.restart(&format!("observer-{member}"))?;
    }
    let seen = deployment.wait_status("the primary is seen", SOON, |status| {
        observed(status)["primary"] == NORTH && status.member(EAST)["postgres"] == "standby"
    });
    let status = seen.await?;
    ensure!(status.epoch() == 0 && status.primary().is_none(), "somebody was appointed: {status}");
    let explained = deployment.ctl(&["explain", CLUSTER]).await?;
    ensure!(explained["primary"] == NORTH, "{explained:#}");
    ensure!(
        explained["verdict"].as_str().is_some_and(|text| text.starts_with("observed only")),
        "{explained:#}"
    );
    let args = ["failover", CLUSTER, "--reason", "to try", "--yes"];
    let refused = deployment.ctl_from(WITNESS, &args).await?;
    ensure!(refused.code == 1, "an observed cluster was failed over: {refused:?}");

    // Its primary is stopped: Regent says what it would do, and does nothing.
    deployment.stop_by_hand(NORTH)?;
    deployment
        .wait_event("would fail over", SOON, |event| {
            event["kind"] == "would_fail_over"
                && event["member"] == NORTH
                && event["text"].as_str().is_some_and(|text| text.contains(EAST))
        })
        .await?;
    let status =
        deployment.wait_status("it is counted", SOON, |status| observed(status)["count"] == 1).await?;
    ensure!(observed(&status)["would"].as_str().is_some_and(|would| would.contains(EAST)), "{status}");
    ensure!(status.epoch() == 0 && in_recovery(&deployment, EAST).await?, "something was done: {status}");
    let listed = deployment.last_operation("observed").await?;
    ensure!(listed["summary"]["state"] == "running", "{listed:#}");

    // The other tool does what it does.
    deployment.promote_by_hand(EAST)?;
    deployment
        .wait_status("the new primary is seen", SOON, |status| observed(status)["primary"] == EAST)
        .await?;
    let report = deployment.last_operation("observed").await?;
    ensure!(
        report["summary"]["state"] == "done" && report["summary"]["trigger"] == "postgres_down",
        "{report:#}"
    );
    ensure!(
        report["summary"]["from_member"] == NORTH && report["summary"]["to_member"] == EAST,
        "{report:#}"
    );
    let triggers = report["evidence"]["triggers"].as_array().cloned().unwrap_or_default();
    ensure!(triggers.iter().any(|one| one["name"] == "postgres_down" && one["holds"] == true), "{report:#}");
    ensure!(!in_recovery(&deployment, EAST).await?, "the observer has touched it");
    for member in MEMBERS {
        deployment.kill(&format!("observer-{member}"));
    }
    deployment.stop_by_hand(EAST)?;
    deployment.finish().await
}
