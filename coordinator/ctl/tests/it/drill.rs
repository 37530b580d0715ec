//! Drills as an operator types them.

use crate::{samples::world, support::Fake};

#[tokio::test]
async fn a_drill_is_shown_confirmed_when_it_moves_anything_and_started() {
    let fake = Fake::start(world()).await;
    let ran = fake.ctl(&["drill", "gravl", "--reason", "monthly", "--dry-run"]).await.expect(0);
    ran.says("drill, stopped before promotion, of gravl at epoch 4: region eu-north-1 counts as lost")
        .says("detect")
        .says("10m");
    let ran = fake.ctl(&["drill", "gravl", "--reason", "blocked", "--dry-run"]).await.expect(1);
    ran.says("guard cooldown: operation 5 is not acknowledged");
    // The default touches nothing, so nobody is asked; the full one moves the primary.
    let ran = fake.ctl(&["drill", "gravl", "--reason", "monthly", "--no-wait"]).await.expect(0);
    ran.says("drill 7 of gravl is started: regentctl history gravl 7");
    let ran = fake.ctl(&["drill", "gravl", "--reason", "monthly", "--full", "--no-wait"]).await.expect(2);
    ran.says("--yes");
    let json = ["drill", "gravl", "--reason", "r", "--full", "--yes", "--no-wait", "-o", "json"];
    assert_eq!(fake.ctl(&json).await.expect(0).json()["operation"], 7);
    fake.ctl(&["drill", "gravl", "--reason", "r", "--expected-epoch", "9", "--no-wait"]).await.expect(1);
    fake.ctl(&["drill", "gravl", "--reason", "r", "--full", "--stop-before-promotion"]).await.expect(2);
}
