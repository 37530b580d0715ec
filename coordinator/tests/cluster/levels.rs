//! A rolling upgrade of the coordinators, played with one node that is held back at the first feature level: it stands
//! for the older build, announces what that would, and reads no more than that could.

use regent_core::{FEATURE_LEVEL, FEATURE_LEVEL_FIRST};

use crate::{
    agent::Handle,
    group::{Group, eventually},
};

const OLDER: &str = "plaintext = true\nfeature_level_max = 1";
const NEWER: &str = "plaintext = true";

async fn level(group: &Group, id: u64) -> u32 {
    group.status(id).await.feature_level.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mixed_group_fails_over_and_its_level_rises_with_the_last_member() {
    let security = |id: u64, _: &std::path::Path| if id == 3 { OLDER } else { NEWER }.to_owned();
    let mut group = Group::start_with(security, None).await;
    let leader = group.leader().await;
    let m1 = Handle::start("m1", 1, group.urls());
    let m2 = Handle::start("m2", 2, group.urls());
    group.until_in_sync(leader).await;

    // Every announcement has arrived, and the group stays where its oldest member is.
    eventually("everyone has announced a level", || async {
        let status = group.status(group.leader().await).await;
        let levels: Vec<_> = status.coordinators.iter().filter_map(|c| c.feature_level).collect();
        (levels.len() == 3 && levels.contains(&u32::from(FEATURE_LEVEL_FIRST))).then_some(())
    })
    .await;
    assert_eq!(level(&group, leader).await, u32::from(FEATURE_LEVEL_FIRST));

    // Mixed, it still fails over.
    drop(m1);
    group.until(leader, "m2 takes over", |cluster| cluster.primary.as_deref() == Some("m2")).await;

    // The last one is upgraded.
    group.stop_node(3).await;
    group.start_node_with(3, NEWER).await.unwrap();
    eventually("the level is raised everywhere", || async {
        for id in 1..=3 {
            if level(&group, id).await != u32::from(FEATURE_LEVEL) {
                return None;
            }
        }
        Some(())
    })
    .await;

    // Back to the older build: it stops and says why; the others go on.
    group.stop_node(3).await;
    let reason = match group.start_node_with(3, OLDER).await {
        Err(error) => format!("{error:?}"),
        Ok(()) => group.nodes[&3].node.raft.stopped().await,
    };
    let told = format!("feature level {FEATURE_LEVEL}, this node understands levels up to 1");
    assert!(reason.contains(&told), "{reason}");
    if group.nodes.contains_key(&3) {
        group.stop_node(3).await;
    }
    let leader = group.leader().await;
    group.until(leader, "m2 is primary", |cluster| cluster.primary.as_deref() == Some("m2")).await;
    drop(m2);
    group.stop().await;
}
