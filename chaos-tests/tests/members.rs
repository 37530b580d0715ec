//! The member list while the cluster runs, on real PostgreSQL: a third member is added, cloned, changed, removed, and comes back.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use regent_chaos::real::checker::LossAllowed;
use regent_chaos::real::clock::{monotonic_ns, wait_until};
use regent_chaos::real::deployment::{
    CLUSTER, Deployment, DeploymentOptions, EAST, NORTH, REJOIN_AT_MOST, WITNESS, Workload,
};

/// A busy machine must not make a partition of its own.
const PATIENT: Duration = Duration::from_secs(30);
const SOON: Duration = Duration::from_secs(60);

async fn slots(deployment: &Deployment) -> Result<Vec<String>> {
    let session = deployment.pg(NORTH).await?;
    let sql = "SELECT slot_name::text FROM pg_replication_slots WHERE slot_name LIKE 'regent_%' ORDER BY 1";
    Ok(session.client().query(sql, &[]).await?.iter().map(|row| row.get(0)).collect())
}

async fn in_sync(deployment: &Deployment) -> Result<()> {
    let confirmed =
        |status: &regent_chaos::real::deployment::Status| status.sync_confirmed(WITNESS) && status.idle();
    deployment.wait_status("the third member is in sync", REJOIN_AT_MOST, confirmed).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_third_member_is_added_cloned_removed_and_comes_back() -> Result<()> {
    let deployment = Deployment::start(DeploymentOptions::new("members").partition_timeout(PATIENT)).await?;
    let workload = Workload::start(&deployment).await?;
    deployment
        .wait_status("the feature level is raised", SOON, |status| {
            status.json()["feature_level"].as_u64() >= Some(2)
        })
        .await?;
    let described = deployment.prepare_third()?;
    let described: Vec<&str> = described.iter().map(String::as_str).collect();
    let add =
        [&["members", "add", CLUSTER, WITNESS], &described[..], &["--reason", "a second standby"]].concat();

    // Looking changes nothing.
    deployment.ctl(&[&add[..], &["--dry-run"]].concat()).await?;
    ensure!(deployment.status().await?.member(WITNESS).is_null(), "a dry run has added it");
    deployment.ctl(&add).await?;
    for kind in ["guard", "agent"] {
        deployment.restart(&format!("{kind}-{WITNESS}"))?;
    }
    in_sync(&deployment).await?;
    let rejoin = deployment.last_operation("rejoin").await?;
    ensure!(rejoin.to_string().contains("Cloned"), "{rejoin:#}");
    ensure!(slots(&deployment).await?.contains(&"regent_eu_west_1".to_owned()), "no slot for it");
    let row = workload.wait_write_after(monotonic_ns(), SOON).await?;
    let (writer_id, number) = (row.writer_id, row.number);
    let arrived = async || {
        let Ok(session) = deployment.app(WITNESS).await else { return false };
        let text = "SELECT count(*) > 0 FROM chaos_rows WHERE writer_id = $1 AND number = $2";
        session.client().query_one(text, &[&writer_id, &number]).await.is_ok_and(|row| row.get(0))
    };
    wait_until("a row arrives there", SOON, arrived).await?;

    // Changed while it runs; of the primary only what does not contradict its record.
    let set =
        ["members", "set", CLUSTER, WITNESS, "--priority", "7", "--promotable", "false", "--reason", "x"];
    deployment.ctl(&set).await?;
    let listed = deployment.ctl(&["members", "list", CLUSTER]).await?;
    let one = listed["members"].as_array().into_iter().flatten();
    let one = one.map(|one| &one["definition"]).find(|one| one["name"] == WITNESS);
    let one = one.context("it is not listed")?;
    ensure!(one["priority"] == 7 && one["promotable"] == false, "{one}");
    let args = ["members", "set", CLUSTER, NORTH, "--promotable", "false", "--reason", "x"];
    let refused = deployment.ctl_from(WITNESS, &args).await?;
    ensure!(refused.code == 1 && refused.stderr.contains(NORTH), "{refused:?}");
    let args = ["members", "set", CLUSTER, EAST, "--promotable", "false", "--reason", "x"];
    let refused = deployment.ctl_from(WITNESS, &args).await?;
    ensure!(refused.code == 1 && refused.stderr.contains("last promotable"), "{refused:?}");

    // Removed: its PostgreSQL stops, its slot goes.
    let remove = ["members", "remove", CLUSTER, WITNESS, "--reason", "given up"];
    deployment.ctl(&remove).await?;
    wait_until("its PostgreSQL stops", SOON, async || deployment.postgres_run(WITNESS).await.is_err())
        .await?;
    wait_until("its slot is gone", SOON, async || {
        slots(&deployment).await.is_ok_and(|slots| !slots.contains(&"regent_eu_west_1".to_owned()))
    })
    .await?;

    // Back: nobody knows what was done to its data outside, so only a clone may follow.
    deployment.ctl(&add).await?;
    in_sync(&deployment).await?;
    let rejoin = deployment.last_operation("rejoin").await?;
    ensure!(rejoin.to_string().contains("Cloned"), "{rejoin:#}");
    ensure!(deployment.count("failover").await? == 0, "there was a failover");
    deployment.wait_ready(SOON).await?;
    workload.finish(&deployment, LossAllowed::Nothing).await?;
    deployment.finish().await
}
