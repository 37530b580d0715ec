//! The operator's commands, as real scripts: a veto holds an automatic failover back and nothing else, events arrive in
//! order with their sequence numbers.

use std::os::unix::fs::PermissionsExt;

use regent_proto::v1::ExplainRequest;

use crate::{
    agent::Handle,
    group::{Group, eventually},
};

fn script(dir: &std::path::Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_veto_holds_an_automatic_failover_back_and_events_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let (told, allow) = (dir.path().join("told"), dir.path().join("allow"));
    let veto = script(
        dir.path(),
        "veto",
        &format!(
            "cat >> {}/asked; [ -e {} ] && exit 0; echo not now; exit 1",
            dir.path().display(),
            allow.display()
        ),
    );
    let event = script(dir.path(), "event", &format!("cat >> {}", told.display()));
    let security = format!(
        "plaintext = true\n[hooks]\nveto = [{veto:?}]\nveto_retry = \"200ms\"\nevent = [{event:?}]\n"
    );
    let group = Group::start_with(|_, _| security.clone(), None).await;
    let m1 = Handle::start("m1", 1, group.urls());
    let m2 = Handle::start("m2", 2, group.urls());
    let leader = group.leader().await;
    group.until_in_sync(leader).await;
    drop(m1);
    let request = ExplainRequest { cluster: "c".into() };
    let explained = eventually("the veto is explained", || async {
        let reply = group.operator(leader).await.explain(request.clone()).await.ok()?.into_inner();
        reply.verdict.contains("not now").then_some(reply)
    })
    .await;
    assert!(!explained.would_fail_over, "{explained:?}");
    assert_eq!(group.cluster(leader).await.unwrap().epoch, 1, "nothing was fenced");
    let asked = std::fs::read_to_string(dir.path().join("asked")).unwrap();
    let question: serde_json::Value = serde_json::from_str(asked.lines().next().unwrap()).unwrap();
    assert_eq!((question["cluster"].as_str(), question["primary"].as_str()), (Some("c"), Some("m1")));
    std::fs::write(&allow, "").unwrap();
    group.until(leader, "the failover goes on", |c| c.primary.as_deref() == Some("m2")).await;
    eventually("the failover is told", || async {
        let text = std::fs::read_to_string(&told).unwrap_or_default();
        text.contains("\"appointed\"").then_some(())
    })
    .await;
    let text = std::fs::read_to_string(&told).unwrap();
    let events: Vec<serde_json::Value> =
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let sequences: Vec<u64> = events.iter().filter_map(|event| event["sequence"].as_u64()).collect();
    assert!(sequences.is_sorted() && sequences.first() == Some(&1), "{sequences:?}");
    assert!(events.iter().any(|event| event["kind"] == "vetoed"), "{text}");
    drop(m2);
    group.stop().await;
}
