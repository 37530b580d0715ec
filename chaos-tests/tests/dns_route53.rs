//! Route 53 as a second provider: it is down while a failover redirects, and comes back.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::{Result, ensure};
use regent_chaos::real::clock::wait_until;
use regent_chaos::real::deployment::{
    CLUSTER, Deployment, DeploymentOptions, EAST, NAME, NORTH, REGIONS, Service, WITNESS,
};
use regent_route53_fake::{Fake, Options};

const SOON: Duration = Duration::from_secs(60);

/// Address and companion text of the name, PENDING or not.
fn published(fake: &Fake) -> Vec<String> {
    let mut lines: Vec<String> = fake
        .records(NAME)
        .iter()
        .map(|record| format!("{} {}", record.kind, record.values.join(" ")))
        .collect();
    lines.sort();
    lines
}

fn expected(deployment: &Deployment, member: &str, epoch: u64) -> Result<Vec<String>> {
    let address = deployment.address(WITNESS, member, Service::Postgres)?.ip();
    Ok(vec![format!("A {address}"), format!("TXT \"regent-epoch={epoch} member={member}\"")])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_waits_for_route53_and_ends_when_it_is_back() -> Result<()> {
    let zone = NAME.split_once('.').map_or(NAME, |(_, zone)| zone);
    let settings = Options { session_token: Some("fake-session-token".into()), ..Options::new(zone) };
    // For every user: the coordinators do not run as the one who tests.
    let dir = std::env::temp_dir().join(format!("regent-route53-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755))?;
    let credentials = dir.join("credentials");
    let text = format!(
        "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\naws_session_token = fake-session-token\n",
        settings.key_id, settings.secret
    );
    std::fs::write(&credentials, text)?;
    std::fs::set_permissions(&credentials, std::fs::Permissions::from_mode(0o644))?;
    let fake = Fake::start(Options { requests_per_second: 50, ..settings.clone() }).await?;
    let table = format!(
        "[[route53]]\nzone = {zone:?}\nhosted_zone_id = {:?}\nendpoint_url = {:?}\nregion = {:?}\n\
         credentials_file = {credentials:?}\ntimeout = \"2s\"\n",
        settings.zone_id,
        fake.url(),
        settings.region
    );
    let mut options = DeploymentOptions::new("route53")
        .partition_timeout(Duration::from_secs(30))
        .dns_provider("route53", &table);
    options.log_filter =
        format!("{},aws_smithy_runtime=trace,aws_sigv4=trace,aws_runtime=trace", options.log_filter);
    let deployment = Deployment::start(options).await?;
    let before = deployment.status().await?;
    ensure!(published(&fake) == expected(&deployment, NORTH, before.epoch())?, "{:?}", published(&fake));

    fake.set_down(true);
    let epoch = before.epoch().to_string();
    let args = ["failover", CLUSTER, "--reason", "to try", "--expected-epoch", &epoch, "--to", EAST, "--yes"];
    deployment.ctl(&args).await?;
    // Promoted, and told why it waits.
    let status = deployment
        .wait_status("redirect waits for route53", SOON, |status| {
            let reason = status.json()["clusters"][0]["operation"]["reason"].as_str().unwrap_or_default();
            status.operation() == Some(("failover", "redirect"))
                && reason.contains("route53 cannot be reached")
        })
        .await?;
    ensure!(status.primary() == Some(EAST), "{status}");
    let raised = status.epoch();
    // The other provider has it, clients write, and the record of the old epoch stands at the one that is down.
    wait_until("the embedded zone leads to the new primary", SOON, async || {
        deployment.dns().await.is_ok_and(|found| found == (Some(EAST), Some(raised)))
    })
    .await?;
    ensure!(published(&fake) == expected(&deployment, NORTH, before.epoch())?, "{:?}", published(&fake));
    let leader = deployment.leader().await?;
    let ok = deployment.coordinator_metric(&leader, "regent_dns_provider_ok{provider=\"route53\"}").await?;
    ensure!(ok == 0.0, "regent_dns_provider_ok is {ok}");

    fake.set_down(false);
    deployment.wait_failover(EAST).await?;
    ensure!(published(&fake) == expected(&deployment, EAST, raised)?, "{:?}", published(&fake));
    let served: Vec<_> = fake.served(NAME).into_iter().map(|record| record.kind).collect();
    ensure!(served == ["A", "TXT"], "not INSYNC: {served:?}");
    let report = deployment.last_operation("failover").await?;
    ensure!(report["summary"]["state"] == "done", "{report:#}");

    // Secrets reach no log, even when the SDK's traces are asked for.
    for region in REGIONS {
        let path = deployment.files().log(&format!("coordinator-{region}"));
        let text = String::from_utf8_lossy(&std::fs::read(&path)?).into_owned();
        for secret in [settings.secret.as_str(), "fake-session-token"] {
            ensure!(!text.contains(secret), "{} holds {secret:?}", path.display());
        }
    }
    std::fs::remove_dir_all(&dir).ok();
    deployment.finish().await
}
