//! PostgreSQL's parameters for a whole cluster: taken by every member, refused by name, and restarted for in the right order.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use regent_chaos::real::checker::LossAllowed;
use regent_chaos::real::clock::{monotonic_ns, wait_until};
use regent_chaos::real::deployment::{
    CLUSTER, Deployment, DeploymentOptions, EAST, MEMBERS, NORTH, WITNESS, Workload,
};
use regent_chaos::real::link::CutDirection;
use serde_json::Value;

/// Nothing here waits for it, and a busy machine must not make a partition of its own.
const PATIENT: Duration = Duration::from_secs(30);
const SOON: Duration = Duration::from_secs(60);

async fn started(options: DeploymentOptions) -> Result<Deployment> {
    // Crashes are part of it, and their recovery must not be taken for a dead server on a busy machine.
    let options = options.partition_timeout(PATIENT).policy("postgres_down_timeout", "\"60s\"");
    let deployment = Deployment::start(options).await?;
    deployment
        .wait_status("the feature level is raised", SOON, |status| {
            status.json()["feature_level"].as_u64() >= Some(2)
        })
        .await?;
    Ok(deployment)
}

async fn in_force(deployment: &Deployment, member: &str, name: &str) -> Result<String> {
    let session = deployment.pg(member).await?;
    Ok(session.client().query_one(&format!("SHOW {name}"), &[]).await?.get(0))
}

/// `regentctl` with all the time that restarts take.
async fn ctl(deployment: &Deployment, args: &[&str]) -> Result<(i32, Value, String)> {
    let all = [args, &["--output", "json"][..]].concat();
    let mut command = deployment.ctl_command(&all);
    let done = tokio::time::timeout(Duration::from_secs(180), command.output()).await.context("no end")??;
    let out = serde_json::from_slice(&done.stdout).unwrap_or(Value::Null);
    let code = done.status.code().context("it died of a signal")?;
    Ok((code, out, String::from_utf8_lossy(&done.stderr).into_owned()))
}

async fn set(deployment: &Deployment, values: &[&str]) -> Result<Value> {
    let args = [&["postgres", "set", CLUSTER][..], values, &["--reason", "test"][..]].concat();
    let (code, out, error) = ctl(deployment, &args).await?;
    ensure!(code == 0, "{values:?}: {code}: {error}");
    Ok(out)
}

fn pending<'r>(reply: &'r Value, member: &str) -> Vec<&'r str> {
    let members = reply["members"].as_array().into_iter().flatten();
    let one = members.into_iter().find(|one| one["member"] == member);
    let names = one.and_then(|one| one["facts"]["pending_restart"].as_array());
    names.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Polls until the member says that exactly this waits for a restart.
async fn waits_for(deployment: &Deployment, member: &str, names: &[&str]) -> Result<()> {
    let mut last = Value::Null;
    let found = wait_until("what waits for a restart", SOON, async || {
        last = deployment.ctl(&["postgres", "show", CLUSTER]).await.unwrap_or_default();
        pending(&last, member) == names
    });
    found.await.with_context(|| format!("{member}, {names:?}: {last:#}"))
}

async fn crashes_and_comes_back(deployment: &Deployment, member: &str) -> Result<()> {
    let before = deployment.kill_postmaster(member).await?;
    wait_until("it runs again", SOON, async || {
        deployment.postgres_run(member).await.is_ok_and(|run| run.started_at_ns != before.started_at_ns)
            && deployment.pg(member).await.is_ok()
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_are_taken_by_all_and_restarted_for_in_order() -> Result<()> {
    let deployment = started(DeploymentOptions::new("parameters").postgres(18)).await?;
    let workload = Workload::start(&deployment).await?;
    let before = deployment.status().await?;
    let runs = (deployment.postgres_run(NORTH).await?, deployment.postgres_run(EAST).await?);

    // What takes no restart is in force at once, everywhere.
    set(&deployment, &["work_mem=7MB", "log_line_prefix=it's %m "]).await?;
    for member in MEMBERS {
        ensure!(in_force(&deployment, member, "work_mem").await? == "7MB", "{member}: work_mem");
        ensure!(in_force(&deployment, member, "log_line_prefix").await? == "it's %m ", "{member}: quoted");
    }
    ensure!(
        runs == (deployment.postgres_run(NORTH).await?, deployment.postgres_run(EAST).await?),
        "restarted"
    );

    // What nobody may set is refused by the group; what PostgreSQL does not know, by every member, and nothing breaks.
    let refused = deployment
        .ctl_from(WITNESS, &["postgres", "set", CLUSTER, "fsync=off", "--reason", "faster"])
        .await?;
    ensure!(refused.code != 0 && refused.stderr.contains("fsync"), "{refused:?}");
    let (code, _, error) =
        ctl(&deployment, &["postgres", "set", CLUSTER, "no_such_thing=1", "work_mem=lots", "--reason", "x"])
            .await?;
    ensure!(code == 1 && error.contains("unrecognized") && error.contains("work_mem"), "{code}: {error}");
    let status = deployment.status().await?;
    ensure!(status.member(EAST)["parameters"]["refused"]["no_such_thing"].is_string(), "{status}");
    crashes_and_comes_back(&deployment, EAST).await?;
    let (code, _, error) =
        ctl(&deployment, &["postgres", "unset", CLUSTER, "no_such_thing", "work_mem", "--reason", "x"])
            .await?;
    ensure!(code == 0, "{error}");
    ensure!(in_force(&deployment, EAST, "work_mem").await? != "7MB", "unset, and still there");

    // Raised: standbys first. The primary is refused, and does not take it by a crash of its own either.
    set(&deployment, &["max_connections=90"]).await?;
    for member in MEMBERS {
        waits_for(&deployment, member, &["max_connections"]).await?;
    }
    let refused = deployment.ctl_from(WITNESS, &["restart", CLUSTER, NORTH, "--reason", "x"]).await?;
    ensure!(
        refused.code == 1 && refused.stderr.contains(EAST) && refused.stderr.contains("max_connections"),
        "{refused:?}"
    );
    crashes_and_comes_back(&deployment, NORTH).await?;
    ensure!(in_force(&deployment, NORTH, "max_connections").await? == "60", "raised by a crash");
    deployment.wait_ready(SOON).await?;
    let (code, done, error) =
        ctl(&deployment, &["restart", CLUSTER, "--if-pending", "--reason", "x"]).await?;
    ensure!(code == 0, "{error}");
    let order: Vec<&str> =
        done.as_array().into_iter().flatten().filter_map(|one| one["member"].as_str()).collect();
    ensure!(order == [EAST, NORTH], "{done:#}");
    for member in MEMBERS {
        ensure!(in_force(&deployment, member, "max_connections").await? == "90", "{member}: raised");
    }
    deployment.wait_ready(SOON).await?;

    // Lowered: the primary first; a standby that crashes meanwhile comes up with what its primary runs with.
    set(&deployment, &["max_connections=70"]).await?;
    waits_for(&deployment, NORTH, &["max_connections"]).await?;
    waits_for(&deployment, EAST, &[]).await?;
    crashes_and_comes_back(&deployment, EAST).await?;
    ensure!(in_force(&deployment, EAST, "max_connections").await? == "90", "less than its primary");
    deployment.wait_ready(SOON).await?;
    let (code, done, error) =
        ctl(&deployment, &["restart", CLUSTER, "--if-pending", "--reason", "x"]).await?;
    ensure!(code == 0, "{error}");
    ensure!(done[0]["member"] == NORTH, "{done:#}");
    // The standby learns it from the WAL, and waits for its own restart then.
    waits_for(&deployment, NORTH, &[]).await?;
    wait_until("the standby has it too", SOON, async || {
        let _ = ctl(&deployment, &["restart", CLUSTER, "--if-pending", "--reason", "x"]).await;
        in_force(&deployment, EAST, "max_connections").await.is_ok_and(|value| value == "70")
    })
    .await?;

    let restarted_ns = monotonic_ns();
    workload.wait_write_after(restarted_ns, SOON).await?;
    let after = deployment.wait_ready(SOON).await?;
    ensure!(after.epoch() == before.epoch() && after.primary() == Some(NORTH), "{after}");
    ensure!(deployment.count("failover").await? == 0, "there was a failover");
    workload.finish(&deployment, LossAllowed::Nothing).await?;
    deployment.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logical_consumers_never_run_ahead_of_the_standby_on_postgres_18() -> Result<()> {
    let deployment =
        started(DeploymentOptions::new("ahead").postgres(18).agent_line("logical_slots = true")).await?;
    // How much WAL a slot may keep is one of the parameters, and what is reported follows it.
    set(&deployment, &["max_slot_wal_keep_size=256MB"]).await?;
    deployment
        .wait_status("the bound is in force", SOON, |status| {
            status.member(NORTH)["retention"]["slot_keep_max_bytes"] == 256u64 << 20
        })
        .await?;
    ensure!(
        fs::read_to_string(deployment.files().data(NORTH).join("regent.parameters.conf"))?
            .contains("synchronized_standby_slots"),
        "the standby's slot is not named"
    );
    let session = deployment.pg(NORTH).await?;
    let make = "SELECT pg_create_logical_replication_slot('sub', 'test_decoding', false, false, true);
                SELECT pg_create_logical_replication_slot('lost', 'test_decoding')";
    session.client().batch_execute(make).await?;
    deployment
        .wait_status("a slot that a failover would lose is told of", SOON, |status| {
            status.member(NORTH)["logical_slots_at_risk"] == 1
        })
        .await?;
    deployment.net().cut(NORTH, EAST, CutDirection::Both)?;
    session.client().batch_execute("CREATE TABLE ahead (id int); INSERT INTO ahead VALUES (7)").await?;
    let read = "SET statement_timeout = '4s'; SELECT pg_logical_slot_get_changes('sub', NULL, NULL)";
    let early = session.client().batch_execute(read).await;
    ensure!(early.is_err(), "a consumer was given what the standby does not have");
    deployment.net().heal();
    let count =
        "SELECT count(*) FROM pg_logical_slot_get_changes('sub', NULL, NULL) WHERE data LIKE '%ahead%'";
    session.client().batch_execute("SET statement_timeout = '60s'").await?;
    let found: i64 = session.client().query_one(count, &[]).await?.get(0);
    ensure!(found > 0, "nothing came after the cut");

    // A standby that stays away holds consumers up for as long as an operator lets it.
    deployment.net().cut(NORTH, EAST, CutDirection::Both)?;
    session.client().batch_execute("INSERT INTO ahead VALUES (8)").await?;
    set(&deployment, &["synchronized_standby_slots="]).await?;
    let found: i64 = session.client().query_one(count, &[]).await?.get(0);
    ensure!(found > 0, "it was let go, and still waits");
    deployment.net().heal();
    drop(session);
    deployment.wait_ready(SOON).await?;
    deployment.finish().await
}
